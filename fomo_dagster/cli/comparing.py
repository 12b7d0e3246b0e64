"""What `fomo compare` shows: by how much methods differ, and whether that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparison import FEW, LoadedComparison, find_comparison
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.graph.nodes.comparison import ComparisonNode
from fomo_dagster.graph.nodes.report import ReportNode
from fomo_dagster.home import Home, project_folder
from fomo_dagster.reports.comparison import datasets_frame, metrics_frame, titled
from fomo_dagster.statistics.comparison import Scored
from fomo_dagster.statistics.significance import replicates_needed, verdict
from fomo_dagster.tables.answers import members_there
from fomo_dagster.tables.comparisons import LABELS, METRICS, Compared, compared, remarks_of

SHOWN_TAUS = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)  # of profiles


def compared_by_name(
    home: Home,
    methods: Sequence[str],
    baseline: str | None,
    *,
    margin: float | None,
    common: bool,
    metrics: Sequence[str] = (),
    experiments: Mapping[str, Sequence[str]] | None = None,
) -> Compared:
    """The methods against the baseline, by default the first. experiments: method → its own, of
    which by default all count that are there.

    Raises `InputError` as `read_methods` and `members_there` do, and where there are not two with
    the baseline.
    """
    asked = list(dict.fromkeys([baseline, *methods] if baseline is not None else methods))
    if len(asked) < 2:
        raise InputError(FEW.format(", ".join(methods)))
    known = experiments or {}
    there = {method: members_there(home, method, known.get(method, ())) for method in asked}
    return compared(home, there, margin=margin, common=common, metrics=metrics)


def metrics_named(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics of names or short names, in letters of any size. Raises `InputError` for what
    cannot be compared."""
    known = {spelt.lower(): name for name in METRICS for spelt in (name, LABELS[name])}
    for name in names:
        if name.lower() not in known:
            labels = ", ".join(LABELS[one] for one in METRICS)
            raise InputError(f"methods are not compared by {name!r}: valid are {labels}")
    return tuple(dict.fromkeys(known[name.lower()] for name in names))


def named_comparison(references: Sequence[str]) -> LoadedComparison | None:
    """The comparison that the arguments of a command name; None where they name methods. Raises
    `InputError` where they name more beside it, or it cannot be used."""
    for reference in references:
        if find_comparison(reference, project_folder()) is not None:
            if len(references) > 1:
                raise InputError(f"{reference} is a comparison: name it alone, or methods alone")
            return load_named(reference, project_folder()).comparison
    return None


def print_comparison(
    node: ComparisonNode, report: ReportNode | None, home: Home, console: Console
) -> None:
    """What an asset found, and where it is. report: its page, if it has one."""
    print_comparisons(node.compared(home), console)
    query = f"SELECT * FROM comparisons WHERE comparison = '{node.loaded.name}'"
    say(console, f'\ntables  fomo sql "{query}"')
    page = report.page(home) if report is not None else None
    if page is not None:
        say(console, f"report  {page}")


def print_comparisons(found: Compared, console: Console) -> None:
    """Each method against the baseline; all pairs where there are several."""
    for one in found.comparisons:
        print_frame(metrics_frame(one, found.margin), titled(one), console, narrow="metric")
        print_frame(datasets_frame(one), "Datasets, in %", console, narrow="dataset")
        for sentence in remarks_of(one):
            say(console, sentence)
    if len(found.comparisons) > 1:
        title = "All pairs over datasets (Wilcoxon, Holm)"
        print_frame(found.pair_rows, title, console, narrow="first")
    title = "Performance profiles: share of runs and datasets that score above τ %"
    print_frame(_profiles(found), title, console, narrow="method")
    for remark in found.read.remarks:
        say(console, remark)


def _profiles(found: Compared) -> pl.DataFrame:
    shown = found.profiles.filter(pl.col("above").is_in(SHOWN_TAUS))
    columns = pl.format("τ = {}", pl.col("above").cast(pl.Int64))
    wide = shown.with_columns(column=columns)
    return wide.pivot("column", index="method", values="share", maintain_order=True)


def as_data(found: Compared) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "comparisons": [
            {
                **asdict(one),
                "metrics": [
                    _as_data(metric) | {"verdict": verdict(metric.difference, found.margin)}
                    for metric in one.metrics
                ],
                "datasets": [_as_data(dataset) for dataset in one.datasets],
            }
            for one in found.comparisons
        ],
        "pairs": [asdict(pair) for pair in found.pairs],
        "profiles": found.profiles.to_dicts(),
        "replicates": list(found.read.replicates),
        "remarks": list(found.read.remarks),
    }


def _as_data(scored: Scored) -> dict[str, Any]:
    data = asdict(scored)
    data["difference"] |= {
        "p": scored.difference.p,
        "replicates_needed": replicates_needed(scored.difference),
    }
    return data
