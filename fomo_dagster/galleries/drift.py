"""How far other weights' embeddings are from a gallery's, and what leaving these would cost.

Whether to embed a gallery anew is asked of a sample of its rows, which both weights embed. What a
refreshed gallery would answer is taken as right. Queries of the new weights can go to the old
embeddings through a linear map, fitted by least squares on rows that are no queries (query drift
compensation, arXiv 2506.00037).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.galleries.files import Floats
from fomo_dagster.statistics.intervals import least_variance, student

MOST_QUERIES = 1000
DEPTH = 10
METRICS: dict[str, pl.DataType] = {
    "concept": pl.String(), "metric": pl.String(), "value": pl.Float64(), "low": pl.Float64(),
    "high": pl.Float64(), "samples": pl.Int64(),
}  # fmt: skip
"""Columns of what is measured, each a mean with its 95 % interval over samples (null of one); the
concept is null for all rows together."""
COSINE = "cosine"

Places = npt.NDArray[np.int64]


def drift_of(old: Floats, new: Floats, concepts: Sequence[str]) -> pl.DataFrame:
    """`METRICS` of N rows, whose embeddings are old, (N, D), and new, (N, E), all of length 1.

    cosine: the mean of old against new, of each concept too; only of equal sizes. Recalls: the
    share of the `DEPTH` nearest rows by the new weights alone, in percent, that is found among the
    old embeddings: by queries of the old weights (recall_old_queries), of the new ones
    (recall_new_queries; only of equal sizes), and of the new ones through the map
    (recall_compensated).
    """
    rows: list[_Row] = []
    if old.shape == new.shape:
        cosines = pl.DataFrame({"concept": concepts, COSINE: (old * new).sum(axis=1)})
        rows.append(_row(None, COSINE, cosines[COSINE].to_numpy()))
        by_concept = cosines.sort("concept").partition_by("concept", as_dict=True)
        rows += [_row(name, COSINE, of[COSINE].to_numpy()) for (name,), of in by_concept.items()]
    count = min(MOST_QUERIES, len(old) // 4)
    if count < 1:
        return pl.DataFrame(rows, schema=METRICS, orient="row")
    queries = np.linspace(0, len(old) - 1, count).round().astype(int)
    rest = np.setdiff1d(np.arange(len(old)), queries)
    mapped = new[queries] @ linear_map(new[rest], old[rest])
    tried = {"recall_old_queries": old[queries], "recall_compensated": mapped}
    if old.shape == new.shape:
        tried["recall_new_queries"] = new[queries]
    right = _nearest(new[queries], new, queries)
    for metric, of in tried.items():
        found = _nearest(of, old, queries)
        shares = (found[:, :, None] == right[:, None, :]).any(axis=1).mean(axis=1)  # (Q,)
        rows.append(_row(None, metric, shares, 100.0))
    return pl.DataFrame(rows, schema=METRICS, orient="row")


_Row = tuple[str | None, str, float, float | None, float | None, int]


def _row(concept: str | None, metric: str, values: npt.NDArray[Any], unit: float = 1.0) -> _Row:
    """A row of `METRICS`. values: (N,), cosines, or shares where the unit is percent."""
    mean, count = float(values.mean(dtype=np.float64)), len(values)
    if count < 2:
        return concept, metric, unit * mean, None, None, count
    variance = float(values.var(ddof=1, dtype=np.float64)) / count
    least = -1.0
    if unit != 1.0:
        least, variance = 0.0, variance or least_variance(mean, count)
    width = student(count - 1) * math.sqrt(variance)
    low, high = max(least, mean - width), min(1.0, mean + width)
    return concept, metric, unit * mean, unit * low, unit * high, count


def linear_map(new: Floats, old: Floats) -> Floats:
    """The (E, D) matrix that takes new embeddings, (N, E), nearest to the old ones, (N, D), in
    squares; where there are few rows, the one of least norm."""
    found = np.linalg.lstsq(new.astype(np.float64), old.astype(np.float64), rcond=None)[0]
    return np.asarray(found, dtype=np.float32)


def _nearest(
    queries: Floats, embeddings: Floats, own: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(Q, k): for each query, (Q, D), the places of the nearest of N embeddings, (N, D), but its
    own; of equal ones the first."""
    similarities = queries @ embeddings.T  # (Q, N)
    similarities[np.arange(len(own)), own] = -np.inf
    depth = min(DEPTH, len(embeddings) - 1)
    found = np.empty((len(queries), depth), dtype=np.int64)
    for query, of_query in enumerate(similarities):
        least = np.partition(of_query, -depth)[-depth]
        places = np.flatnonzero(of_query >= least)  # more than `depth` where several are equal
        found[query] = places[np.argsort(-of_query[places], kind="stable")[:depth]]
    return found
