"""The result of evaluating one checkpoint on one dataset: facts in long form, in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

METRICS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "task": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),  # percent
    "samples": pl.Int64(),  # what the value is a mean over
}
CONCEPT_METRICS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "concept": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),  # percent
    "samples": pl.Int64(),  # images of the concept
}


@dataclass(frozen=True)
class EvaluationResult:
    """The dataset's metrics, one row per concept with its part of the score, and a row a query."""

    metrics: pl.DataFrame
    """Columns of `METRICS`; the dataset's main value stands under its name and as `score`."""
    concepts: pl.DataFrame
    """Columns of `CONCEPT_METRICS`, by concept; a concept without samples has no row."""
    predictions: pl.DataFrame
    """Columns of `tables.view_columns.PREDICTION_COLUMNS`, in the order of the samples."""


def metrics_frame(dataset: str, task: str, values: Mapping[str, tuple[float, int]]) -> pl.DataFrame:
    """`METRICS` from the value and number of samples of each metric."""
    rows = [(dataset, task, metric, *value) for metric, value in values.items()]
    return pl.DataFrame(rows, schema=METRICS, orient="row")


def percent(hits: npt.NDArray[np.bool_]) -> float:
    """The share of hits, in percent."""
    return 100 * int(hits.sum()) / len(hits)
