"""The tables: what a row states, and the type and meaning of each column.

Types, DuckDB's comments and the reference of the site come from here and from `view_columns.py`.
Every table is in long form, one fact a row. Which rows count is decided by the heads that the views
join with (`selects.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fomo_dagster.errors import InputError, StoreError, nearest
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.tables.columns import (
    COMPARISON,
    CONCEPT,
    DATASET,
    EXPERIMENT,
    INTEGER,
    NUMBER,
    ROLE,
    STAGE,
    STREAM,
    TEXT,
    Column,
    Table,
)
from fomo_dagster.tables.release_schemas import RELEASE_TABLES

_SCORES = ", ".join(metric.label for metric in STAGE_METRICS)

TABLES: Mapping[str, Table] = {
    "evaluations": Table(
        "a metric of a dataset, for the weights of a stage; `score` is the main one",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "role": ROLE,
            "task": Column(TEXT, "`classification` or `retrieval`"),
            "metric": Column(TEXT, "the metric's name; `score` is accuracy or recall@5"),
            "value": Column(
                NUMBER,
                "the metric's value, in percent; likelihoods in nats, `temperature` and the "
                "weights of layers as factors",
            ),
            "samples": Column(INTEGER, "how many test samples the value is computed from"),
        },
    ),
    "concept_scores": Table(
        "a metric of a concept, for the weights of a stage",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "role": ROLE,
            "concept": CONCEPT,
            "metric": Column(TEXT, "`accuracy` or `recall@5`"),
            "value": Column(NUMBER, "the metric's value, in percent"),
            "samples": Column(
                INTEGER, "how many of the concept's test samples it is computed from"
            ),
        },
    ),
    "scores": Table(
        f"{_SCORES} of a stage; null where not defined",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            **{
                metric.name: Column(NUMBER, f"{metric.description} ({metric.unit})", True)
                for metric in STAGE_METRICS
            },
        },
    ),
    "experiments": Table(
        "an experiment, and the settings that questions are mostly about",
        {
            "experiment": EXPERIMENT,
            "file": Column(TEXT, "the file that declares it, from `experiments` on"),
            "sweep": Column(TEXT, "the sweep that it is one of; null if none", True),
            "replicate_of": Column(
                TEXT,
                "the name that it shares with those that differ from it in seeds alone, if any",
                True,
            ),
            "replicate": Column(TEXT, "what tells it from these, such as `seed_1`; else empty"),
            "seed": Column(INTEGER, "the experiment's seed"),
            "backbone": Column(TEXT, "the backbone's name, of the assets of θ₀"),
            "stream": STREAM,
            "stream_order": Column(TEXT, "`stream.order`"),
            "stages": Column(INTEGER, "the stages that it is evaluated at, beside stage 0"),
            "method": Column(TEXT, "`method.name`: what is trained, such as `finetune` or `lora`"),
            "preserve": Column(TEXT, "`method.preserve.name`; null if nothing", True),
            "start_from": Column(TEXT, "`method.start_from`: the weights that a stage starts from"),
            "deploy": Column(TEXT, "`method.deploy`: the weights that a stage deploys"),
            "technique": Column(
                TEXT, "`method.merge.technique`; null if nothing is merged over time", True
            ),
            "optimiser": Column(TEXT, "`optimiser.name`"),
            "learning_rate": Column(NUMBER, "`optimiser.learning_rate`, before any scaling"),
            "schedule": Column(TEXT, "`schedule.name`"),
            "batch_size": Column(INTEGER, "samples of the contrastive batch, over all pools"),
            "budget": Column(NUMBER, "the length of a stage, in `budget_unit`"),
            "budget_unit": Column(
                TEXT, "`samples`, `steps` or `epochs` of a stage; `mafs`: GFLOPs of all stages"
            ),
            "update_share": Column(
                NUMBER,
                "share of a batch from the stage's own chunk, from 0 to 1; where it "
                "changes, the mean of its points",
            ),
            "buffer_share": Column(NUMBER, "the same of earlier chunks"),
            "pretraining_share": Column(NUMBER, "the same of the pretraining pool"),
            "settings": Column(TEXT, "all that changes numbers, as JSON in the experiment's keys"),
        },
    ),
    "training_steps": Table(
        "a step of the optimiser, and how many samples of each pool it saw",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "step": Column(INTEGER, "the step within the stage, counted from 0"),
            "loss": Column(NUMBER, "the contrastive loss"),
            "preservation_loss": Column(NUMBER, "what `method.preserve` adds to the loss; else 0"),
            "learning_rate": Column(
                NUMBER, "the schedule's rate, before the factors of layers and towers"
            ),
            "gradient_norm": Column(
                NUMBER, "before clipping; infinite if fp16 overflowed and the step was skipped"
            ),
            "logit_scale": Column(NUMBER, "the logarithm of the inverse temperature"),
            "samples_per_second": Column(NUMBER, "throughput, over all pools", True),
            "flops_utilisation": Column(
                NUMBER,
                "operations a second, as a share of what the devices can do at most (MFU); null "
                "where that is not known, as on a CPU",
                True,
            ),
            "update_samples": Column(INTEGER, "samples of the batch from the stage's own chunk"),
            "buffer_samples": Column(INTEGER, "samples of the batch from earlier chunks"),
            "pretraining_samples": Column(
                INTEGER, "samples of the batch from the pretraining pool"
            ),
        },
    ),
    "datasets": Table(
        "a dataset as it stands in its shards",
        {
            "dataset": DATASET,
            "task": Column(TEXT, "`classification` or `retrieval`"),
            "domain": Column(TEXT, "the declared domain"),
            "licence": Column(TEXT, "the declared licence"),
            "concepts": Column(INTEGER, "how many concepts have samples"),
            "train_samples": Column(INTEGER, "samples of the training split"),
            "test_samples": Column(INTEGER, "samples of the test split"),
            "quarantined": Column(INTEGER, "images left out because they cannot be decoded"),
            "transparent": Column(INTEGER, "images with transparency"),
            "flat": Column(INTEGER, "images of a single colour"),
            "bytes": Column(INTEGER, "size of all shards"),
        },
    ),
    "samples": Table(
        "an image of a dataset, with its captions",
        {
            "dataset": DATASET,
            "split": Column(TEXT, "`train` or `test`"),
            "key": Column(TEXT, "the sample's name, unique within the split"),
            "concept": CONCEPT,
            "captions": Column(pl.List(pl.String()), "the sample's captions; may be empty"),
            "digest": Column(TEXT, "identifies the stored image"),
        },
    ),
    "orders": Table(
        "a concept and its position in a stream; see the view `streams`",
        {
            "stream": STREAM,
            "position": Column(INTEGER, "the concept's place in the stream, counted from 1"),
            "dataset": DATASET,
            "concept": CONCEPT,
            "figure": Column(
                NUMBER, "what the order sorts by, such as a score or a year; null if nothing", True
            ),
        },
    ),
    "chunks": Table(
        "a concept, its position in its chunk, and the samples it brings to a stage",
        {
            "stream": STREAM,
            "stage": Column(INTEGER, "the stage that trains on the chunk, counted from 1"),
            "position": Column(INTEGER, "the concept's place in the chunk, counted from 1"),
            "dataset": DATASET,
            "concept": CONCEPT,
            "samples": Column(INTEGER, "how many training samples the concept brings"),
        },
    ),
    "comparisons": Table(
        "a metric, or a dataset's score, of a method against the baseline of a comparison, at "
        "their last stages",
        {
            "comparison": COMPARISON,
            "method": Column(TEXT, "the method's name: an experiment's, or its replicates'"),
            "baseline": Column(TEXT, "what it is compared with, another method"),
            "kind": Column(TEXT, "`metric` or `dataset`"),
            "name": Column(TEXT, "the metric's name as a column of `scores`, or the dataset's"),
            "role": Column(TEXT, "of a dataset: " + ROLE.meaning + "; null of a metric", True),
            "value": Column(NUMBER, "of the method, in percent: the mean over replicates"),
            "baseline_value": Column(NUMBER, "the same of the baseline"),
            "difference": Column(NUMBER, "`value` less `baseline_value`, in points"),
            "low": Column(NUMBER, "the lower end of its 95 % interval"),
            "high": Column(NUMBER, "the upper end of its 95 % interval"),
            "p": Column(
                NUMBER,
                "that there is no difference: McNemar's exact test for one replicate of a "
                "classification dataset, else Student's t",
            ),
            "corrected_p": Column(
                NUMBER, "`p` after Holm's correction for all datasets; null of a metric", True
            ),
            "replicates": Column(INTEGER, "how many pairs of replicates"),
            "replicates_needed": Column(
                INTEGER,
                "how many would see a difference as large in 80 % of cases; null where none up to "
                "1,000 would do, or nobody can tell",
                True,
            ),
            "queries": Column(INTEGER, "how many test images and captions"),
            "verdict": Column(
                TEXT,
                "of a metric: `better`, `worse`, `equivalent`, `no worse` or `too little to tell`; "
                "null of a dataset",
                True,
            ),
            "margin": Column(
                NUMBER, "points within which methods count as equivalent; null if not asked", True
            ),
        },
    ),
    "comparison_pairs": Table(
        "two methods of a comparison over all its datasets",
        {
            "comparison": COMPARISON,
            "first": Column(TEXT, "a method"),
            "second": Column(TEXT, "another method"),
            "difference": Column(NUMBER, "mean score of `first` less that of `second`, in points"),
            "wins": Column(INTEGER, "datasets on which `first` is higher"),
            "losses": Column(INTEGER, "datasets on which `first` is lower"),
            "p": Column(NUMBER, "of Wilcoxon's signed rank test, after Holm's for all pairs"),
        },
    ),
    **RELEASE_TABLES,
}

SCHEMAS: Mapping[str, Mapping[str, pl.DataType]] = {
    name: {column: declared.type for column, declared in table.columns.items()}
    for name, table in TABLES.items()
}
"""Table → column → type."""


def schema_of(table: str) -> Mapping[str, pl.DataType]:
    """The columns of `table`; raises `InputError`, with the nearest name, if there is none."""
    if table not in SCHEMAS:
        raise InputError(f"there is no table {table!r}: {nearest(table, SCHEMAS)}")
    return SCHEMAS[table]


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with its columns in the order of the table's.

    Raises `StoreError` that names every column which is missing, unknown, of another type, or null
    if it may not be: a wrong row would be served forever.
    """
    columns = schema_of(table)
    wrong = [f"column {name!r} is missing" for name in columns if name not in frame.columns]
    for name, found in frame.schema.items():
        if name not in columns:
            wrong.append(f"it has no column {name!r}, {nearest(name, columns)}")
        elif found != columns[name]:
            wrong.append(f"column {name!r} is {found}, not {columns[name]}")
        elif not TABLES[table].columns[name].nullable and (nulls := frame[name].null_count()):
            wrong.append(f"column {name!r} is null in {nulls} of {frame.height} rows")
    if wrong:
        raise StoreError(f"these rows do not fit the table {table!r}: " + "; ".join(wrong))
    return frame.select(list(columns))
