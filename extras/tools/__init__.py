"""The commands of main.py beside its main job: --audit, --predict, --show-data, --sweep and --list-nets."""

from typing import Any

from pipnet.errors import lines


def list_nets(names: list[str]) -> list[dict]:
    """Print a table of the nets and return its rows, see `extras.tools.zoo.list_nets`."""
    from extras.tools import zoo

    text, rows = zoo.list_nets(names)
    print(lines(text))
    return rows


def run_audit(job: Any) -> dict[str, list[dict]]:
    """Find wrong labels, see `extras.tools.audit.audit`. job: a `utils.task.job.Job`."""
    from extras.tools import audit

    audit.audit(job.task_data, job.ranks, job.run)
    return job.figures("audit")


def run_prediction(job: Any) -> dict[str, list[dict]]:
    """Write the landmarks of pictures, see `extras.tools.predict.run_prediction`. job: a `utils.task.job.Job`."""
    from extras.tools import predict

    if not job.ranks.first:
        return {}
    origin = job.given.get("first_pixel") or 0
    text, rows = predict.run_prediction(job.runs.exp, job.run, job.mode, job.settings, origin)
    print(lines(text))
    return {"predict": rows}
