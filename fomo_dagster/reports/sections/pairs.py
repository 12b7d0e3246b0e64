"""Each method against the baseline, and all pairs: what `fomo compare` says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from fomo_dagster.plots.comparisons import pairs_figure, profiles_figure
from fomo_dagster.plots.methods import differences_figure
from fomo_dagster.reports.comparison import (
    datasets_frame,
    metrics_frame,
    titled,
    worst_first,
)
from fomo_dagster.reports.content import Block, Figure, Fold, Section, Source, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.statistics.comparison import Comparison, Scored
from fomo_dagster.tables.comparisons import LABELS, Compared, remarks_of, shown_p

QUERY = """
SELECT * FROM predictions WHERE experiment IN ({experiments})
QUALIFY stage = max(stage) OVER (PARTITION BY experiment)
"""
MOST_OPEN = 3  # methods whose tables are open
_NUMBERS = ("difference", "95 % interval", "p", "p (Holm)")


def section(reported: Reported) -> Section | None:
    """None where nothing is compared."""
    found = reported.comparison
    if found is None:
        return None
    comparisons = found.comparisons
    blocks: list[Block] = [
        Figure(
            "differences_by_dataset",
            "Differences of each dataset's score to the baseline with 95 % intervals, the worst "
            "first.",
            differences_figure(differences(comparisons), "points", reported.baseline),
            _source(reported, found),
        )
    ]
    for one in comparisons:
        own = _of_one(reported, found, one)
        blocks += own if len(comparisons) <= MOST_OPEN else [Fold(titled(one), own)]
    if len(comparisons) > 1:
        blocks += _all_pairs(found, _source(reported, found))
    blocks.append(
        Figure(
            "profiles",
            "Performance profiles: the share of replicates and datasets that score above τ"
            + (", with 95 % intervals over replicates." if comparisons[0].replicates > 1 else "."),
            profiles_figure(found.profiles),
            _source(reported, found),
        )
    )
    return Section("comparison", f"Against {reported.baseline}", blocks)


def _all_pairs(found: Compared, source: Source) -> list[Block]:
    frame = found.pair_rows
    caption = (
        "All pairs over datasets: mean difference in points, on how many the first is higher "
        "and lower, and p of Wilcoxon's signed rank test after Holm's correction."
    )
    shown = frame.with_columns(pl.col("p").map_elements(shown_p, pl.String))
    drawing = pairs_figure(frame, list(found.read.answers))
    matrix = Figure("pairs", caption.replace("the first", "the row's"), drawing, source)
    return [matrix, Fold("All pairs", [Table("pairs", caption, shown, frame, source, ("p",))])]


def differences(comparisons: Sequence[Comparison]) -> pl.DataFrame:
    """A row a method and dataset, the worst first: method, name, role, value, baseline, and of the
    difference estimate, low, high, p and Holm's p."""
    return pl.concat(_as_frame(one.method, worst_first(one)) for one in comparisons)


def _of_one(reported: Reported, found: Compared, one: Comparison) -> list[Table | tuple[str, ...]]:
    source = _source(reported, found)
    by_dataset = f"comparison_{reported.part_of(one.method, 'by_dataset')}"
    datasets = _as_frame(one.method, worst_first(one)).with_columns(
        chance=pl.col("name").replace_strict(
            reported.chances, default=None, return_dtype=pl.Float64
        )
    )
    return [
        Table(
            f"comparison_{one.method}", f"{titled(one)}{_within(found.margin)}.",
            metrics_frame(one, found.margin), _as_frame(one.method, one.metrics), source, _NUMBERS,
        ),
        Table(
            by_dataset, f"{one.method} against {one.baseline} by dataset, in %, the worst first; p "
            "after Holm's correction.", datasets_frame(one, reported.chances),
            datasets, source, _NUMBERS,
        ),
        tuple(remarks_of(one)),
    ]  # fmt: skip


def _source(reported: Reported, found: Compared) -> Source:
    return reported.source(QUERY, _command(reported, found), "evaluation")


def _command(reported: Reported, found: Compared) -> str:
    """The comparison by its name if it has one: its methods need not be all replicates there."""
    names = list(found.read.answers)
    if reported.of_comparison and names == reported.names:
        return shlex.join(["fomo", "compare", *reported.asked, *reported.options])
    options = [] if found.margin is None else ["--margin", f"{found.margin:g}"]
    options += ["--common"] if reported.common else []
    options += [part for name in reported.metrics for part in ("--metric", LABELS[name])]
    return shlex.join(["fomo", "compare", *names, *options])


def _within(margin: float | None) -> str:
    return "" if margin is None else f"; equivalent: within ±{margin:g} points"


def _as_frame(method: str, scored: Sequence[Scored]) -> pl.DataFrame:
    rows = []
    for one in scored:
        row = {"method": method, **asdict(one)}
        difference = row.pop("difference")
        rows.append(row | difference | {"p": getattr(one, "p", one.difference.p)})
    return pl.DataFrame(rows)
