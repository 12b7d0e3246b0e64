"""What `fomo target` shows: how long experiments take to reach a value that they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.measures import metric_named
from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.plots.figure import drawn
from fomo_dagster.plots.targets import targets_figure
from fomo_dagster.statistics.time_to_target import MOST
from fomo_dagster.store.files import write_bytes
from fomo_dagster.tables.targets import Targets, targets_of
from fomo_dagster.tables.trajectories import COSTS
from fomo_dagster.units import counted, duration, number, operations

_WRITTEN = {"steps": number, "samples": number, "flops": operations, "seconds": duration}


def targets_asked(
    home: Home, references: Sequence[str], metric: str | None, *, value: float | None,
    of: str | None, dataset: str | None, every_dataset: bool, by: Sequence[str], cost: str,
    trials: int | None,
) -> Targets:  # fmt: skip
    """As `targets_of`. Raises `InputError` also where there are not exactly one of `value` and
    `of`, and for a metric that there is not."""
    if (value is None) == (of is None):
        raise InputError("a target is a value or that of a baseline: give one of --value and --of")
    if dataset is not None and every_dataset:
        raise InputError("--dataset and --every-dataset exclude each other: give one of them")
    measured = metric_named(metric, dataset or ("" if every_dataset else None))
    return targets_of(
        home.root, references, measured, value=value, of=of,
        datasets=[dataset] if dataset else [], every_dataset=every_dataset, by=by, cost=cost,
        trials=trials,
    )  # fmt: skip


def write_drawing(found: Targets, path: Path) -> None:
    """Raises `InputError` where nothing recorded the cost, and for a path of no picture."""
    write_bytes(path, drawn(targets_figure(found), path.suffix), named=True)


def print_targets(found: Targets, console: Console) -> None:
    """When each experiment reaches the target and keeps it, and the profiles."""
    several = found.rows["workload"].n_unique() > 1
    shown = [
        {
            "experiment": row["experiment"],
            **({"workload": row["workload"]} if several else {}),
            "target": row["target"],
            "best": row["best"],
            "kept": _kept(row),
            **{
                cost: _spent(row[cost], _WRITTEN[cost], kept=row["held"] is not None)
                for cost in COSTS
            },
        }
        for row in found.rows.rows(named=True)
    ]
    title = f"Time to a target: {found.metric.label}, kept until the last stage"
    print_frame(pl.DataFrame(shown, infer_schema_length=None), title, console, numbers=COSTS)
    if found.rows["held"].null_count():
        say(console, ">: spent without keeping the target")
    if found.profile is not None:
        workloads = found.rows["workload"].n_unique()
        title = (
            f"Performance profiles in {found.cost} (AlgoPerf), of {counted(workloads, 'workload')}"
        )
        say(console, (title, "bold"))
        print_frame(found.profile, None, console, narrow="method")
        say(
            console,
            "ρ(τ): the share of workloads on which a method takes at most τ times the fastest's "
            f"{found.cost}; score: the mean of ρ from 1 to {MOST:g}",
        )
    for remark in found.remarks:
        say(console, remark)


def targets_as_data(found: Targets) -> dict[str, Any]:
    """All of it, for JSON."""
    rows = [{**row, "censored": row["held"] is None} for row in found.rows.rows(named=True)]
    return {
        "metric": found.metric.name,
        "in": found.cost,
        "experiments": rows,
        "profile": None if found.profile is None else found.profile.to_dicts(),
        "remarks": list(found.remarks),
    }


def _kept(row: Mapping[str, Any]) -> str:
    if row["held"] is not None:
        return f"from stage {row['held']}"
    return "never" if row["first"] is None else f"reached at stage {row['first']}, lost again"


def _spent(value: float | None, write: Any, *, kept: bool) -> str:
    if value is None:
        return ""
    return f"{'' if kept else '> '}{write(value)}"
