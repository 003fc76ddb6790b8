"""The commands of main.py beside its main job: --audit, --predict, --show-data, --sweep and --list-nets."""

from typing import Any

from pipnet.errors import lines


def list_nets(names: list[str]) -> list[dict]:
    """Print a table of the nets and return its rows, see `extras.tools.zoo.list_nets`."""
    from extras.tools import zoo

    text, rows = zoo.list_nets(names)
    print(lines(text))
    return rows


def run_sweep(mode: Any, given: dict[str, Any], defaults: Any) -> list[dict]:
    """Train with each combination of some values, see `extras.tools.sweep.sweep`."""
    from extras.tools.sweep import sweep

    return sweep(mode, given, defaults)


def show_sets(task_data: Any, ranks: Any, count: int) -> str:
    """Draw training faces, see `extras.tools.show.show_sets`."""
    from extras.tools import show

    return show.show_sets(task_data, ranks, count)


def check_audit(settings: Any) -> None:
    """Raise UserError for settings that allow no audit, see `extras.tools.audit.check_audit`."""
    from extras.tools import audit

    audit.check_audit(settings)


def run_audit(job: Any) -> dict[str, list[dict]]:
    """Find wrong labels, see `extras.tools.audit.audit`. job: a `utils.task.job.Job`."""
    from extras.tools import audit

    audit.audit(job.task_data, job.ranks, job.run)
    return job.figures("audit")


def check_prediction(mode: Any, settings: Any, folder: Any) -> None:
    """Raise UserError for flags of --predict that do not fit together, see `extras.tools.predict.check_flags`."""
    from extras.tools import predict

    predict.check_flags(mode, settings, folder)


def run_prediction(job: Any) -> dict[str, list[dict]]:
    """Write the landmarks of pictures, see `extras.tools.predict.run_prediction`. job: a `utils.task.job.Job`."""
    from extras.tools import predict

    if not job.ranks.first:
        return {}
    origin = job.given.get("first_pixel") or 0
    text, rows = predict.run_prediction(job.runs.exp, job.run, job.mode, job.settings, origin)
    print(lines(text))
    return {"predict": rows}
