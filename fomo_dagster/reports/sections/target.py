"""What methods take until they reach a score that is declared, and keep it."""

from __future__ import annotations

import shlex

import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.metrics import GEOMETRIC_MEAN, STAGE_METRICS
from fomo_dagster.plots.targets import targets_figure
from fomo_dagster.reports.content import Block, Figure, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.sections.curves import AGAINST_FLOPS
from fomo_dagster.tables.targets import Targets, targets_of
from fomo_dagster.units import duration, number, operations

COST = "flops"
TITLE = "Time to a target"
_WRITTEN = {"samples": number, "flops": operations, "seconds": duration}
_NUMBERS = 1 + len(_WRITTEN)  # the last columns: the best value, and what it took


def section(reported: Reported) -> Section | None:
    """None where no target is declared, or nothing is known of its metric."""
    target = reported.target
    if target is None or reported.stages[target.metric].is_null().all():
        return None
    metric = next(one for one in STAGE_METRICS if one.name == target.metric)
    of = reported.baseline if target.value is None else None
    try:
        found = targets_of(
            reported.home.root, reported.experiments, metric, value=target.value, of=of, cost=COST
        )
    except InputError as error:  # of the baseline, whose last value the target is to be
        return Section("target", TITLE, [f"No target: {error}."])
    aim = ["--value", f"{target.value:g}"] if of is None else ["--of", of]
    of_metric = [] if metric is GEOMETRIC_MEAN else ["--metric", metric.label]
    # Of a method that a comparison names, not all replicates that are there need be its own.
    names = reported.experiments if reported.of_comparison else reported.names
    command = shlex.join(["fomo", "target", *names, *of_metric, *aim, "--in", COST])
    source = reported.source(AGAINST_FLOPS, command, "scores", "weights")
    caption = (
        f"What each run took until its {metric.label} was {_aim(found, of)} or more and stayed so "
        "to its last stage; >: spent without that."
    )
    there = set(found.rows["experiment"])
    if without := [name for name in reported.experiments if name not in there]:
        caption += f" Without {metric.label}, and left out: {', '.join(without)}."
    shown = _shown(found)
    blocks: list[Block] = [
        Table("target", caption, shown, found.rows, source, [*shown.columns[-_NUMBERS:]])
    ]
    if found.stages.filter(pl.col("stage") > 0)[COST].is_not_null().any():
        caption = (
            f"{metric.label} over the operations of all trainings and merges up to then. Dashes: "
            "the target; rings: from there on as good; crosses: the end of a run that does not "
            "keep it."
        )
        blocks.append(Figure("target", caption, targets_figure(found), source))
    return Section("target", TITLE, blocks)


def _aim(found: Targets, of: str | None) -> str:
    """The target for people. of: whose last value it is."""
    targets = found.rows.select("workload", "target").unique(maintain_order=True)
    if targets["target"].n_unique() == 1:
        value = targets["target"][0]
        return f"{value:g}" if of is None else f"{value:.2f}, that of {of},"
    told = ", ".join(f"{value:.2f} on {workload}" for workload, value in targets.iter_rows())
    return f"that of {of} on the same workload ({told})"


def _shown(found: Targets) -> pl.DataFrame:
    of_workload = ["workload"] if found.rows["workload"].n_unique() > 1 else []
    best = f"best {found.metric.label}"
    headings = {"samples": "samples", "flops": "FLOPs", "seconds": "time"}
    rows = [
        {
            "run": row["experiment"],
            **{name: row[name] for name in of_workload},
            "kept": "never" if row["held"] is None else f"from stage {row['held']}",
            best: f"{row['best']:.2f}",
            **{
                headings[cost]: None
                if row[cost] is None
                else ("> " if row["held"] is None else "") + write(row[cost])
                for cost, write in _WRITTEN.items()
            },
        }
        for row in found.rows.iter_rows(named=True)
    ]
    schema = dict.fromkeys(("run", *of_workload, "kept", best, *headings.values()), pl.String())
    return pl.DataFrame(rows, schema=schema)
