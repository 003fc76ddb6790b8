"""The report page of a landmark test: charts, faces, comparisons with other runs."""

from typing import Any


def show_case(*args: Any) -> Any:
    """Write the faces of a case and return what the page shows, see `extras.report.report.show_case`."""
    from extras.report import report

    return report.show_case(*args)


def read_compared(*args: Any) -> Any:
    """Return the figures of another run, see `extras.report.report.read_compared`."""
    from extras.report import report

    return report.read_compared(*args)


def write_page(*args: Any) -> None:
    """Write the page of a report, see `extras.report.page.write_report_page`."""
    from extras.report import page

    page.write_report_page(*args)
