"""The files of predictions, which lie in the store with the evaluations that made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.home import Home
from fomo_dagster.metrics import COUNTS_WITHIN
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.store_files import OF_PREDICTIONS
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS
from fomo_dagster.units import duration

EVALUATION = OF_PREDICTIONS.kind
PREDICTIONS = OF_PREDICTIONS.file
_LEVEL = 19  # of zstd: 3 % smaller than by 9, for 3 ms of a thousand rows
QUERY = ("dataset", "query", "key", "caption")
"""The columns that tell queries apart."""


def write_predictions(rows: pl.DataFrame, path: Path) -> None:
    """Write a file of predictions, in few bytes: where one is right, what follows from that is
    null, and keys are written as what they have not in common with the one before."""
    from pyarrow import parquet  # as Polars chooses encodings itself

    is_wrong = pl.col("rank") > 0
    of_wrong = ("predicted", "probability_of_predicted")
    table = rows.with_columns(
        pl.when(is_wrong).then(pl.col(name)).alias(name) for name in of_wrong
    ).to_arrow()
    parquet.write_table(
        table, path, compression="zstd", compression_level=_LEVEL,
        use_dictionary=["query", "caption", "concept", "rank", "predicted"],
        column_encoding={"key": "DELTA_BYTE_ARRAY"},
        write_statistics=False, store_schema=False,  # of which small files have more than of rows
    )  # fmt: skip


def whole(rows: pl.DataFrame, task: str) -> pl.DataFrame:
    """The rows of a file with what it left out, and null in columns that came later. The view
    `predictions` does the same."""
    right = "key" if task == "retrieval" else "concept"
    columns = pl.DataFrame(schema=PREDICTION_COLUMNS)
    return pl.concat([columns, rows], how="diagonal").with_columns(
        predicted=pl.coalesce("predicted", right),
        probability_of_predicted=pl.coalesce("probability_of_predicted", "probability"),
    )


def predictions_of(artifact: Artifact, dataset: str, task: str) -> pl.DataFrame:
    """The rows of `Predictions` that an evaluation has."""
    rows = whole(read_parquet(artifact.path(PREDICTIONS)), task).with_columns(
        dataset=pl.lit(dataset), task=pl.lit(task), correct=pl.col("rank") < COUNTS_WITHIN[task]
    )
    return rows.select("dataset", "task", pl.exclude("dataset", "task"))


class NoPredictionsError(InputError):
    """Evaluations from before predictions were kept."""


@dataclass(frozen=True)
class Predictions:
    """What the weights of a stage found. rows: `dataset`, `task`, the columns of the file, and
    `correct`, which is as the score of the task counts."""

    experiment: str
    stage: int
    rows: pl.DataFrame


def read_predictions(
    home: Home, experiment: str, stage: int | None = None, dataset: str | None = None
) -> Predictions:
    """The predictions of an experiment's stage, the last by default, on all datasets or on one.

    Raises `InputError` where there are none: for an experiment that was not evaluated, a stage or a
    dataset that it has not; `NoPredictionsError` for an evaluation from before predictions were
    kept.
    """
    of_stages = _evaluated(home.heads, experiment)
    number = max(of_stages) if stage is None else stage
    if number not in of_stages:
        raise InputError(
            f"{experiment} was evaluated at the stages {min(of_stages)} to {max(of_stages)}, and "
            f"not at {number}"
        )
    head = of_stages[number]
    if dataset is not None and dataset not in head.artifacts:
        raise InputError(
            f"{experiment} is not evaluated on {dataset!r}: {nearest(dataset, head.artifacts)}"
        )
    found, without, seconds = [], [], 0.0
    for name, (kind, digest) in head.artifacts.items():
        if dataset not in (None, name):
            continue
        artifact = home.store.open(kind, digest)
        if artifact is None:
            raise InputError(
                f"the evaluation of {name} by {experiment}, stage {number}, is no longer in the "
                f"store: `fomo run {experiment}` makes it again"
            )
        if PREDICTIONS not in artifact.manifest["files"]:
            without.append(name)
            seconds += artifact.cost.get("seconds", 0.0)
            continue
        found.append(predictions_of(artifact, name, head.recipes[name]["parameters"]["task"]))
    if without:
        raise NoPredictionsError(
            f"{experiment}, stage {number}, was evaluated on {', '.join(without)} before "
            f"predictions were kept: `fomo run {experiment} --predictions` evaluates again what "
            f"has none (these took {duration(seconds)} then)"
        )
    return Predictions(experiment, number, pl.concat(found))


def retire_without_predictions(home: Home, head: Head) -> int:
    """Have the evaluations of an asset made again that have no predictions; how many."""
    retired = 0
    for kind, digest in head.artifacts.values():
        artifact = home.store.open(kind, digest) if kind == EVALUATION else None
        if artifact is not None and PREDICTIONS not in artifact.manifest["files"]:
            home.store.retire(kind, digest)
            retired += 1
    return retired


def _evaluated(heads: Heads, experiment: str) -> dict[int, Head]:
    """Stage → the head of its evaluation, of an experiment that has any."""
    found = {}
    for asset in heads.below(experiment):
        head = heads.read(asset)
        if head is not None and head.kind == EVALUATION and head.stage is not None:
            found[head.stage] = head
    if not found:
        known = {asset.split("/")[0] for asset in heads.below("") if "/evaluation_" in asset}
        if replicates := sorted(name for name in known if name.startswith(f"{experiment}_seed_")):
            raise InputError(f"{experiment} has replicates: name one, such as {replicates[0]}")
        raise InputError(
            f"no evaluation of {experiment!r} is there: "
            + (nearest(experiment, sorted(known)) if known else "nothing was evaluated yet")
        )
    return found
