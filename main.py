"""The life of a net: prepare data, train, test, export. `python main.py --help` lists and explains every flag."""

try:
    from utils.settings.start import ROOT, STOPPED, begin_loading, end_loading, run_command, stop_without, when_stopped
except ImportError as missing:  # a script that imports this file may have a package `utils` of its own
    from pipnet.console import load_failure

    raise SystemExit(f"error: {load_failure(missing)}") from None

if __name__ == "__main__":
    begin_loading()
try:
    from pipnet.errors import UserError  # noqa: F401 those who call main() catch UserError
    from utils.data.paths import check_sets, import_outside, unpacked_sets
    from utils.settings.config import PATHS, PER_NODE, Defaults, check_files, parse, read_defaults
    from utils.settings.formats import lacking
    from utils.settings.machine import software
    from utils.settings.modes import check_modes
    from utils.settings.progress import log_to_terminal
except (ImportError, OSError) as missing:
    stop_without(missing)

import os
from argparse import Namespace
from pathlib import Path


def main(argv: list[str]) -> dict[str, list[dict]]:
    """Run the modes on the command line: prepare, show, train, test, export, predict.

    Return the figures that they print, {table: its rows}; none in processes other than the first.
    """
    defaults = read_defaults()
    mode, given = parse(argv, defaults)
    check_modes(mode, given)
    if mode.train or mode.audit or mode.sweep:
        when_stopped(STOPPED)
    check_files({**given, **{name: getattr(mode, name) for name in ("exp", "predict", "out", "compare")}})
    import_outside(given)
    log_to_terminal(os.environ.get("RANK", "0") == "0")
    with unpacked_sets(given, Path(ROOT) / given.get("data_root", defaults.values["data_root"])) as given:
        return _run(mode, given, defaults)


def _run(mode: Namespace, given: dict, defaults: Defaults) -> dict[str, list[dict]]:
    """Run the modes with the given keys."""
    check_sets(given, defaults)
    written = [*mode.export, *mode.test_formats, *["onnx"] * mode.test_onnx]
    if missing := lacking(written) if mode.train else lacking(mode.export, ()):  # a trained net may have its ONNX file
        stop_without(ModuleNotFoundError(name=missing))
    try:  # torch takes seconds to load, so the flags are checked before
        from utils.task.job import ALONE, STEPS, Job, task_of
        from utils.task.run_access import find_runs, opened
        from utils.train.ranks import keep_memory, set_threads, start_ranks
        from utils.train.settings import read_settings, read_trained
    except (ImportError, OSError) as missing:
        stop_without(missing)
    end_loading()
    for name, command in ALONE.items():
        if getattr(mode, name) is not None:
            return command(mode, given, defaults)

    ranks = start_ranks()
    if ranks.count > 1:
        tables = defaults._replace(values=None, layouts=defaults.layouts.rows)._asdict()
        flags = {name: value for name, value in {**vars(mode), **given}.items() if name not in PATHS}
        ranks.check_alike({**software(), **flags, **tables})
    root = Path(ROOT) / given.get("run_root", defaults.values["run_root"])
    mode, runs = find_runs(mode, given, root, ranks)
    stored = read_trained(mode, runs.progress, defaults)
    settings = read_settings(given, mode, runs.progress, defaults, stored)
    task = task_of(mode, settings, runs)
    with opened(mode, runs, ranks) as run:
        ranks.check_alike({key: value for key, value in settings.flat().items() if key not in PER_NODE})
        set_threads(settings.train.threads, settings.train.deterministic)
        keep_memory()
        job = Job(mode, given, settings, task, ranks, runs, run, None if mode.train else stored).prepared(defaults)
        printed: dict[str, list[dict]] = {}
        for flags, step in STEPS.items():
            if any(getattr(mode, flag) for flag in flags):
                printed |= step(job)
        return printed


if __name__ == "__main__":
    run_command(main)
