"""The tables: what a row states, its columns and their types.

Every table is in long form, one fact a row. Which rows count is decided elsewhere, by the heads
that the views of `fomo_dagster.tables.views` join with.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fomo_dagster.errors import InputError, StoreError, nearest
from fomo_dagster.metrics import STAGE_METRICS

_TEXT, _INTEGER, _NUMBER = pl.String(), pl.Int64(), pl.Float64()

DESCRIPTIONS: Mapping[str, str] = {
    "evaluations": "a metric of a dataset, for the weights of a stage; `score` is the main one",
    "concept_scores": "a metric of a concept, for the weights of a stage",
    "scores": f"{', '.join(metric.label for metric in STAGE_METRICS)} of a stage; null where not "
    "defined",
    "training_steps": "a step of the optimiser, and how many samples of each pool it saw",
    "datasets": "a dataset as it stands in its shards",
    "samples": "an image of a dataset, with its captions",
    "orders": "a concept and its position in a stream; see the view `streams`",
    "chunks": "a concept, its position in its chunk, and the samples it brings to a stage",
}

SCHEMAS: Mapping[str, Mapping[str, pl.DataType]] = {
    "evaluations": {
        "experiment": _TEXT,
        "stage": _INTEGER,
        "dataset": _TEXT,
        "role": _TEXT,
        "task": _TEXT,
        "metric": _TEXT,
        "value": _NUMBER,
        "samples": _INTEGER,
    },
    "concept_scores": {
        "experiment": _TEXT,
        "stage": _INTEGER,
        "dataset": _TEXT,
        "role": _TEXT,
        "concept": _TEXT,
        "metric": _TEXT,
        "value": _NUMBER,
        "samples": _INTEGER,
    },
    "scores": {
        "experiment": _TEXT,
        "stage": _INTEGER,
        **{metric.name: _NUMBER for metric in STAGE_METRICS},
    },
    "training_steps": {
        "experiment": _TEXT,
        "stage": _INTEGER,
        "step": _INTEGER,
        "loss": _NUMBER,
        "preservation_loss": _NUMBER,
        "learning_rate": _NUMBER,
        "gradient_norm": _NUMBER,
        "logit_scale": _NUMBER,
        "samples_per_second": _NUMBER,
        "update_samples": _INTEGER,
        "buffer_samples": _INTEGER,
        "pretraining_samples": _INTEGER,
    },
    "datasets": {
        "dataset": _TEXT,
        "task": _TEXT,
        "domain": _TEXT,
        "licence": _TEXT,
        "concepts": _INTEGER,
        "train_samples": _INTEGER,
        "test_samples": _INTEGER,
        "quarantined": _INTEGER,
        "transparent": _INTEGER,
        "flat": _INTEGER,
        "bytes": _INTEGER,
    },
    "samples": {
        "dataset": _TEXT,
        "split": _TEXT,
        "key": _TEXT,
        "concept": _TEXT,
        "captions": pl.List(pl.String()),
        "digest": _TEXT,
    },
    "orders": {
        "stream": _TEXT,
        "position": _INTEGER,
        "dataset": _TEXT,
        "concept": _TEXT,
        "figure": _NUMBER,
    },
    "chunks": {
        "stream": _TEXT,
        "stage": _INTEGER,
        "position": _INTEGER,
        "dataset": _TEXT,
        "concept": _TEXT,
        "samples": _INTEGER,
    },
}

# Null where there is none, or nobody knows it any more; anywhere else a null is a mistake.
NULLABLE: Mapping[str, frozenset[str]] = {
    "scores": frozenset(metric.name for metric in STAGE_METRICS),
    "orders": frozenset({"figure"}),
    "training_steps": frozenset({"samples_per_second"}),
}


def schema_of(table: str) -> Mapping[str, pl.DataType]:
    """The columns of `table`; raises `InputError`, with the nearest name, if there is none."""
    if table not in SCHEMAS:
        raise InputError(f"there is no table {table!r}: {nearest(table, SCHEMAS)}")
    return SCHEMAS[table]


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with its columns in the order of the table's.

    Raises `StoreError` naming every column that is missing, not the table's, of another type, or
    null where it may not be: a wrong row would be served for ever.
    """
    columns = schema_of(table)
    wrong = [f"column {name!r} is missing" for name in columns if name not in frame.columns]
    for name, found in frame.schema.items():
        if name not in columns:
            wrong.append(f"it has no column {name!r}, {nearest(name, columns)}")
        elif found != columns[name]:
            wrong.append(f"column {name!r} is {found}, not {columns[name]}")
        elif name not in NULLABLE.get(table, ()) and (nulls := frame[name].null_count()):
            wrong.append(f"column {name!r} is null in {nulls} of {frame.height} rows")
    if wrong:
        raise StoreError(f"these rows do not fit the table {table!r}: " + "; ".join(wrong))
    return frame.select(list(columns))
