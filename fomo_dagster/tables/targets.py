"""How long experiments take to reach a value that they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.metrics import Metric
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.time_to_target import (
    MOST,
    benchmark_scores,
    performance_profiles,
    reached,
)
from fomo_dagster.tables.replicates import run_otherwise
from fomo_dagster.tables.trajectories import COSTS, experiments_of, trajectories
from fomo_dagster.units import counted

TAUS = (1.0, 1.5, 2.0, 3.0, MOST)


@dataclass(frozen=True)
class Targets:
    """rows: a row for each experiment and workload: `method`, `experiment`, `workload`, `target`,
    `first` and `held` (stages, null where the target is not reached, or not kept), `best`, the best
    value, `stages`, and of COSTS what it took until `held`, else what was spent without it.

    stages: a row for each experiment, workload and stage: `method`, `experiment`, `workload`,
    `stage`, `value`, and of COSTS what it took up to there.

    profile: a row for each method: `method`, `reached`, the workloads on which it keeps the
    target; `score`, and ρ at each of TAUS. None where methods do not share all workloads, and where
    replicates of one differ in more than seeds.
    """

    metric: Metric
    cost: str
    rows: pl.DataFrame
    stages: pl.DataFrame
    profile: pl.DataFrame | None
    remarks: tuple[str, ...]


def targets_of(
    home: Path, references: Sequence[str], metric: Metric, *, value: float | None = None,
    of: str | None = None, datasets: Sequence[str] = (), every_dataset: bool = False,
    by: Sequence[str] = (), cost: str = "seconds", trials: int | None = None,
) -> Targets:  # fmt: skip
    """When experiments reach a value, or else the last one of a baseline, and keep it to the end.

    A method is what the columns `by` of the view `experiments` tell apart, by default experiments
    but for their seeds. A workload is a stream with a backbone, both but for the seeds of
    replicates, and with `every_dataset` each dataset. of: a name as of `references`, or of a
    method. metric, datasets: as of `trajectories`. trials: with how many trials each method was
    tuned, of which for each seed the fastest counts.
    Raises `InputError` for what is not there, and for a method with another number of trials.
    """
    if cost not in COSTS:
        raise InputError(f"there is no cost {cost!r}: {nearest(cost, COSTS)}")
    experiments = _with_methods(experiments_of(home, references), by)
    of_baseline: list[str] = []
    if of is not None:
        known = experiments.filter(label=of)
        if known.is_empty():
            known = _with_methods(experiments_of(home, [of]), by)
        of_baseline = known["experiment"].to_list()
        experiments = pl.concat([experiments, known]).unique("experiment", maintain_order=True)
    values = trajectories(home, experiments["experiment"].to_list(), metric, datasets)
    values = experiments.select("experiment", "label", "stream", "backbone", "replicate").join(
        values, on="experiment", maintain_order="left_right"
    )
    values = values.with_columns(workload=_workload(values, every_dataset=every_dataset)).filter(
        pl.col("value").is_not_null().any().over("experiment", "workload")
    )
    wanted = _wanted(values, value, of, of_baseline)
    rows = [
        _row(group, metric, wanted[group["workload"][0]])
        for _, group in values.group_by("experiment", "workload", maintain_order=True)
    ]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    labels = set(experiments["label"])
    otherwise = [
        f"no profiles of {name}: {said}"
        for name, said in run_otherwise(home).items()
        if not by and name in labels
    ]
    profile, remarks = (None, otherwise) if otherwise else _profile(frame, cost, trials)
    if without := sorted(set(experiments["experiment"]) - set(values["experiment"])):
        remarks.append(f"without {metric.label}, and left out: {', '.join(without)}")
    stages = values.select("experiment", "workload", "stage", "value", *COSTS, method="label")
    return Targets(metric, cost, frame, stages, profile, tuple(remarks))


def _with_methods(experiments: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    for name in by:
        if name not in experiments.columns:
            raise InputError(
                f"experiments are not told apart by {name!r}: {nearest(name, experiments.columns)}"
            )
    told = [pl.col(column).cast(pl.String).fill_null("none") for column in by or ["name"]]
    return experiments.with_columns(label=pl.concat_str(told, separator=" · "))


def _workload(values: pl.DataFrame, *, every_dataset: bool) -> pl.Expr:
    """The name of a row's workload: what is the same in all is left out."""
    columns = ["stream", "backbone", *(["dataset"] if every_dataset else [])]
    varied = [name for name in columns if values[name].n_unique() > 1] or columns[-1:]
    return pl.concat_str([pl.col(name).fill_null("unknown") for name in varied], separator=" · ")


def _wanted(
    values: pl.DataFrame, value: float | None, of: str | None, of_baseline: Sequence[str]
) -> Mapping[str, float]:
    """Workload → target. That of a baseline is the mean of its replicates' last values."""
    workloads = values["workload"].unique().to_list()
    if value is not None:
        return dict.fromkeys(workloads, value)
    final = (
        values.filter(pl.col("experiment").is_in(list(of_baseline)))
        .filter(pl.col("stage") == pl.col("stage").max().over("experiment"))
        .group_by("workload")
        .agg(pl.col("value").mean())
        .drop_nulls()
    )
    found = dict(final.iter_rows())
    if missing := sorted(set(workloads) - set(found)):
        raise InputError(
            f"{of} has no last value on {', '.join(missing)}: give the target as a value, or "
            "leave out the experiments on it"
        )
    return found


def _row(stages: pl.DataFrame, metric: Metric, target: float) -> dict[str, Any]:
    """stages: those of one experiment and workload, in order."""
    values = stages["value"].to_list()
    found = reached(values, target, "low" if metric.best == "low" else "high")
    last = stages.height - 1
    spent = stages.row(last if found.held is None else found.held, named=True)
    known = [value for value in values if value is not None]
    best = (min if metric.best == "low" else max)(known, default=None)
    return {
        "method": spent["label"],
        "experiment": spent["experiment"],
        "workload": spent["workload"],
        "study": spent["replicate"] or "",
        "target": target,
        "first": None if found.first is None else stages["stage"][found.first],
        "held": None if found.held is None else stages["stage"][found.held],
        "best": best,
        "stages": stages["stage"][last],
        **{cost: spent[cost] for cost in COSTS},
    }


def _profile(
    rows: pl.DataFrame, cost: str, trials: int | None
) -> tuple[pl.DataFrame | None, list[str]]:
    """Of the medians over the experiments of a method and workload, or with trials over its
    studies, those that never reach the target counting as infinite."""
    methods = rows["method"].unique(maintain_order=True).to_list()
    workloads = rows["workload"].unique(maintain_order=True).to_list()
    if len(methods) < 2:
        return None, []
    unknown = rows.filter(pl.col("held").is_not_null() & pl.col(cost).is_null())
    if unknown.height:
        return None, [
            f"no profile: {', '.join(unknown['experiment'].unique())} recorded no {cost}; choose "
            "another cost with --in"
        ]
    times = np.full((len(methods), len(workloads)), np.nan)
    for place, method in enumerate(methods):
        for column, workload in enumerate(workloads):
            own = rows.filter(method=method, workload=workload)
            if own.is_empty():
                return None, [f"no profile: {method} has no experiment on {workload}"]
            took = pl.when(pl.col("held").is_null()).then(float("inf")).otherwise(pl.col(cost))
            own = own.with_columns(took=took.cast(pl.Float64))
            if trials is not None:
                own = _fastest_trials(own, trials)
            times[place, column] = np.median(own["took"])
    remarks = []
    if never := [
        w for w, ever in zip(workloads, np.isfinite(times).any(axis=0), strict=True) if not ever
    ]:
        remarks.append(f"no method keeps the target on {', '.join(never)}, which counts for none")
    return _profile_rows(methods, times), remarks


def _fastest_trials(rows: pl.DataFrame, trials: int) -> pl.DataFrame:
    """Of one method on one workload the fastest of each study's trials, as AlgoPerf's external
    tuning counts. Raises `InputError` where there are not as many trials as were declared."""
    for (study,), own in rows.group_by("study", maintain_order=True):
        if own.height != trials:
            of_study = f" of {study}" if study else ""
            raise InputError(
                f"{own['method'][0]} has {counted(own.height, 'trial')}{of_study} on "
                f"{own['workload'][0]}, and {trials} are declared: every method is tuned with as "
                "many (--by says which experiments are one method's)"
            )
    return rows.group_by("study", maintain_order=True).agg(pl.min("took"))


def _profile_rows(methods: Sequence[str], times: Floats) -> pl.DataFrame:
    profiles = performance_profiles(times, np.array(TAUS))
    return pl.DataFrame(
        {
            "method": methods,
            "reached": np.isfinite(times).sum(axis=1),
            "score": benchmark_scores(times),
            **{f"ρ({tau:g})": profiles[:, place] for place, tau in enumerate(TAUS)},
        }
    ).sort("score", descending=True, maintain_order=True)
