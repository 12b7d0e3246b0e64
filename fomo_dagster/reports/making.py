"""Which sections a report has, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from fomo_dagster.reports.content import Report, Section
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.one_sweep import without_name_of
from fomo_dagster.reports.sections import (
    costs,
    curves,
    final_scores,
    grids,
    losses,
    matrix,
    pairs,
    paths,
    responses,
    settings,
    shifts,
    target,
    windows,
)

SECTIONS: tuple[Callable[[Reported], Section | None], ...] = (
    settings.section,
    final_scores.section,
    paths.section,
    curves.section,
    target.section,
    matrix.section,
    windows.section,
    shifts.section,
    pairs.section,
    grids.section,
    responses.section,
    losses.section,
    costs.section,
)
"""Each gives its section, or None where it has nothing to show."""

MOST_IN_TITLE = 3  # methods; of more, the title has what they were asked for by


def report_of(reported: Reported) -> Report:
    """The report of methods. Raises `InputError` where they cannot be compared."""
    found = [section for make in SECTIONS if (section := make(reported)) is not None]
    others = [name for name in reported.names[1:] if name not in reported.oracles]
    several = others if len(others) <= MOST_IN_TITLE else reported.asked
    title = f"{', '.join(several)} against {reported.baseline}" if others else reported.baseline
    remarks = [*reported.said, *reported.left_out]
    report = Report(title, reported.newest, reported.command, remarks, found)
    if reported.sweep is None:
        return report
    return without_name_of(reported.sweep, [*reported.names, *reported.experiments], report)
