"""The life of a net: prepare data, train, test, export. `python main.py --help` lists and explains every flag."""

from utils.settings.start import ROOT, STOPPED, begin_loading, end_loading, run_command, stop_without, when_stopped

if __name__ == "__main__":
    begin_loading()
try:
    from pipnet.errors import UserError, lines  # noqa: F401 those who call main() catch UserError
    from pipnet.files import read_csv
    from utils.data.packed import unpack_sets
    from utils.data.paths import check_sets
    from utils.settings.config import PATHS, PER_NODE, check_files, parse, read_defaults
    from utils.settings.extras import extra
    from utils.settings.formats import lacking
    from utils.settings.machine import software
    from utils.settings.modes import TABLES, TESTS, check_modes
except (ImportError, OSError) as missing:
    stop_without(missing)

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
    paths = {key: given[key] for key in PATHS if key in given}
    check_files({**paths, **{name: getattr(mode, name) for name in ("exp", "predict", "out", "compare")}})
    paths = unpack_sets(paths, Path(ROOT) / paths.get("data_root", defaults.values["data_root"]))
    check_sets(paths, defaults)
    given = {**given, **paths}
    if mode.train and (missing := lacking([*mode.export, *mode.test_formats, *["onnx"] * mode.test_onnx])):
        stop_without(ModuleNotFoundError(name=missing))
    try:  # torch takes seconds to load, so the flags are checked before
        from loguru import logger

        from extras.tools import audit, predict
        from pipnet.app.web import check_page
        from utils.data.sets import Sets
        from utils.evaluate.tables import with_numbers
        from utils.task import landmarks, run_access
        from utils.task.run_tests import run_tests
        from utils.train.ranks import keep_memory, set_threads, start_ranks
        from utils.train.settings import read_settings
    except (ImportError, OSError) as missing:
        stop_without(missing)
    end_loading()
    if mode.list_nets is not None:
        text, nets = extra("tools").list_nets(mode.list_nets)
        print(lines(text))
        return {"nets": nets}
    if mode.sweep:
        return {"sweep": extra("tools").run_sweep(mode, given, defaults)}

    ranks = start_ranks()
    if ranks.count > 1:
        tables = defaults._replace(values=None, layouts=defaults.layouts.rows)._asdict()
        flags = {name: value for name, value in {**vars(mode), **given}.items() if name not in PATHS}
        ranks.check_alike({**software(), **flags, **tables})
    root = Path(ROOT) / given.get("run_root", defaults.values["run_root"])
    mode, runs = run_access.find_runs(mode, given, root, ranks)
    settings = read_settings(given, mode, runs.progress, defaults)
    task = landmarks
    if settings.train.task == "detect":
        task = extra("detector").task()
        task.check(mode)
    if mode.audit:
        audit.check_audit(settings)
    if mode.predict:
        predict.check_flags(mode, settings, runs.own.folder)
    if mode.out and "web" in mode.export:
        check_page(Path(mode.out), mode.overwrite)
    trains, tests = mode.train or mode.audit, any(getattr(mode, name) for name in TESTS)
    printed: dict[str, list[dict]] = {}
    with run_access.opened(mode, runs, ranks) as run:
        ranks.check_alike({key: value for key, value in settings.flat().items() if key not in PER_NODE})
        set_threads(settings.train.threads, settings.train.deterministic)
        keep_memory()
        if trains:
            logger.info(f"training on {', '.join(settings.data.train_data)}")
        calibrates = "int8" in {*mode.export, *mode.test_formats} and not (trains or run.keeps("int8"))
        # test sets are prepared before the training, so that one that cannot be used is found now
        needs_tests = (
            tests or (mode.train and settings.data.val == "test") or (mode.prepare and settings.data.test_data)
        )
        sources = task.prepare(
            settings,
            Sets(settings, defaults, mode.overwrite),
            ranks,
            mode.prepare or trains or mode.show_data or calibrates,
            needs_tests,
        )
        if mode.show_data:
            text = task.show(sources, ranks, mode.show_data, run)
            if ranks.first:
                print(lines(text))
        if mode.train:
            task.train(sources, ranks, run, mode.resume)
        if mode.audit:
            audit.audit(sources, ranks, run)
        if mode.export:
            logger.info(
                ranks.agree(
                    lambda: task.tests(sources, ranks, run, runs.compare).export(mode.export, mode.out, mode.overwrite)
                )
            )
        if tests:
            formats = mode.test_formats or ["onnx"] * mode.test_onnx
            run_tests(task.tests(sources, ranks, run, runs.compare), ranks, formats, bool(mode.test_formats))
        if mode.predict and ranks.first:
            text, printed["predict"] = predict.run_prediction(
                runs.exp, run, mode, settings, given.get("first_pixel") or 0
            )
            print(lines(text))
        shown = {
            "train": mode.train,
            "audit": mode.audit,
            "scores": tests,
            "groups": tests,
            "formats": mode.test_formats,
        }
        for name, file in TABLES.items():
            if shown[name] and ranks.first:
                printed[name] = with_numbers(read_csv(run.folder / file))
        return printed


if __name__ == "__main__":
    run_command(main)
