"""The life of a net: prepare data, train, test, export. `python main.py --help` lists and explains every flag."""

try:
    from utils.settings.start import STOPPED, begin_loading, end_loading, run_command, stop_without, when_stopped
except ImportError as missing:  # a script that imports this file may have a package `utils` of its own
    from pipnet.console import load_failure

    raise SystemExit(f"error: {load_failure(missing)}") from None

if __name__ == "__main__":
    begin_loading()
try:
    from extras import PLACES  # noqa: F401 the import fills the tables of the core; a foreign package has none
    from pipnet.errors import UserError  # noqa: F401 those who call main() catch UserError
    from utils.data.paths import check_sets, import_outside, unpacked_sets
    from utils.settings.command import PATHS, PER_NODE, Command, check_files
    from utils.settings.faults import faults, log_unread, refuse, unread
    from utils.settings.formats import REMEDIES, lacking
    from utils.settings.machine import software
    from utils.settings.progress import log_to_terminal
except (ImportError, OSError) as missing:
    stop_without(missing)

import os


def main(argv: list[str]) -> dict[str, list[dict]]:
    """Run the modes on the command line: prepare, show, train, test, export, predict.

    Return the figures that they print, {table: its rows}; none in processes other than the first.
    """
    command = Command.of(argv)
    refuse(faults(command))
    if command.has("train", "audit", "sweep"):
        when_stopped(STOPPED)
    check_files(command)
    import_outside(command)
    log_to_terminal(os.environ.get("RANK", "0") == "0")
    with unpacked_sets(command) as command:
        return _run(command)


def _run(command: Command) -> dict[str, list[dict]]:
    """Run the modes of a command whose flags fit together."""
    check_sets(command)
    if command.has("train"):
        missing = lacking([*command.formats, *["onnx"] * command.has("test_onnx")])
    else:  # the run may have its ONNX file
        missing = lacking(command.mode("export", ()), ())
    if missing:
        stop_without(ModuleNotFoundError(name=missing), REMEDIES.get(missing, ""))
    try:  # torch takes seconds to load, so the flags are checked before
        from utils.task.job import ALONE, STEPS, Job
        from utils.task.run_access import find_runs, opened
        from utils.train.ranks import keep_memory, set_threads, start_ranks
        from utils.train.settings import read_trained, settings_of
    except (ImportError, OSError) as missing:
        stop_without(missing)
    end_loading()
    for name, run_alone in ALONE.items():
        if command.has(name):
            log_unread(command, unread(command))
            return run_alone(command)

    ranks = start_ranks()
    if ranks.count > 1:
        tables = {**command.defaults._asdict(), "values": None, "layouts": command.defaults.layouts.rows}
        flags = {name: value for name, value in {**command.modes, **command.given}.items() if name not in PATHS}
        ranks.check_alike({**software(), **flags, **tables})
    command, runs = find_runs(command, ranks)
    stored = read_trained(command, runs.progress)
    settings = settings_of(command, runs.progress, stored)
    with opened(command, runs, ranks) as run:
        ranks.check_alike({key: value for key, value in settings.flat().items() if key not in PER_NODE})
        set_threads(settings.train.threads, settings.train.deterministic)
        keep_memory()
        job = Job(command, settings, ranks, runs, run, None if command.has("train") else stored).prepared()
        printed: dict[str, list[dict]] = {}
        for flags, step in STEPS.items():
            if command.has(*flags):
                printed |= step(job)
        return printed


if __name__ == "__main__":
    run_command(main)
