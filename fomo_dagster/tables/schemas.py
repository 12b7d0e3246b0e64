"""The tables: what a row states, and the type and meaning of each column.

Types, DuckDB's comments and the reference of the site come from here and from `view_columns.py`.
Every table is in long form, one fact a row. Which rows count is decided by the heads that the views
join with (`selects.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from fomo_dagster.errors import InputError, StoreError, nearest
from fomo_dagster.metrics import STAGE_METRICS

_TEXT, _INTEGER, _NUMBER = pl.String(), pl.Int64(), pl.Float64()


class Column(NamedTuple):
    """A column of a table. nullable: whether a value may be missing or unknown."""

    type: pl.DataType
    meaning: str
    nullable: bool = False


class Table(NamedTuple):
    """description: completes the sentence "a row is …"."""

    description: str
    columns: Mapping[str, Column]


EXPERIMENT = Column(_TEXT, "the experiment's name")
STAGE = Column(_INTEGER, "the stage, counted from 1; 0 is θ₀")
DATASET = Column(_TEXT, "the dataset's name")
_CONCEPT = Column(_TEXT, "the concept's name, a class of the dataset")
ROLE = Column(_TEXT, "`adaptation` or `held_out`")
_STREAM = Column(_TEXT, "the stream's name")
_COMPARISON = Column(_TEXT, "the comparison's name, that of its file")
_SCORES = ", ".join(metric.label for metric in STAGE_METRICS)

TABLES: Mapping[str, Table] = {
    "evaluations": Table(
        "a metric of a dataset, for the weights of a stage; `score` is the main one",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "role": ROLE,
            "task": Column(_TEXT, "`classification` or `retrieval`"),
            "metric": Column(_TEXT, "the metric's name; `score` is accuracy or recall@5"),
            "value": Column(
                _NUMBER,
                "the metric's value, in percent; likelihoods in nats, `temperature` and the "
                "weights of layers as factors",
            ),
            "samples": Column(_INTEGER, "how many test samples the value is computed from"),
        },
    ),
    "concept_scores": Table(
        "a metric of a concept, for the weights of a stage",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "role": ROLE,
            "concept": _CONCEPT,
            "metric": Column(_TEXT, "`accuracy` or `recall@5`"),
            "value": Column(_NUMBER, "the metric's value, in percent"),
            "samples": Column(
                _INTEGER, "how many of the concept's test samples it is computed from"
            ),
        },
    ),
    "scores": Table(
        f"{_SCORES} of a stage; null where not defined",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            **{
                metric.name: Column(_NUMBER, f"{metric.description} ({metric.unit})", True)
                for metric in STAGE_METRICS
            },
        },
    ),
    "experiments": Table(
        "an experiment, and the settings that questions are mostly about",
        {
            "experiment": EXPERIMENT,
            "file": Column(_TEXT, "the file that declares it, from `experiments` on"),
            "sweep": Column(_TEXT, "the sweep that it is one of; null if none", True),
            "replicate_of": Column(
                _TEXT,
                "the name that it shares with those that differ from it in seeds alone, if any",
                True,
            ),
            "replicate": Column(_TEXT, "what tells it from these, such as `seed_1`; else empty"),
            "seed": Column(_INTEGER, "the experiment's seed"),
            "backbone": Column(_TEXT, "the backbone's name, of the assets of θ₀"),
            "stream": _STREAM,
            "stream_order": Column(_TEXT, "`stream.order`"),
            "stages": Column(_INTEGER, "the stages that it is evaluated at, beside stage 0"),
            "method": Column(_TEXT, "`method.name`: what is trained, such as `finetune` or `lora`"),
            "preserve": Column(_TEXT, "`method.preserve.name`; null if nothing", True),
            "start_from": Column(
                _TEXT, "`method.start_from`: the weights that a stage starts from"
            ),
            "deploy": Column(_TEXT, "`method.deploy`: the weights that a stage deploys"),
            "technique": Column(
                _TEXT, "`method.merge.technique`; null if nothing is merged over time", True
            ),
            "optimiser": Column(_TEXT, "`optimiser.name`"),
            "learning_rate": Column(_NUMBER, "`optimiser.learning_rate`, before any scaling"),
            "schedule": Column(_TEXT, "`schedule.name`"),
            "batch_size": Column(_INTEGER, "samples of the contrastive batch, over all pools"),
            "budget": Column(_NUMBER, "the length of a stage, in `budget_unit`"),
            "budget_unit": Column(
                _TEXT, "`samples`, `steps` or `epochs` of a stage; `mafs`: GFLOPs of all stages"
            ),
            "update_share": Column(
                _NUMBER,
                "share of a batch from the stage's own chunk, from 0 to 1; where it "
                "changes, the mean of its points",
            ),
            "buffer_share": Column(_NUMBER, "the same of earlier chunks"),
            "pretraining_share": Column(_NUMBER, "the same of the pretraining pool"),
            "settings": Column(_TEXT, "all that changes numbers, as JSON in the experiment's keys"),
        },
    ),
    "training_steps": Table(
        "a step of the optimiser, and how many samples of each pool it saw",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "step": Column(_INTEGER, "the step within the stage, counted from 0"),
            "loss": Column(_NUMBER, "the contrastive loss"),
            "preservation_loss": Column(_NUMBER, "what `method.preserve` adds to the loss; else 0"),
            "learning_rate": Column(
                _NUMBER, "the schedule's rate, before the factors of layers and towers"
            ),
            "gradient_norm": Column(
                _NUMBER, "before clipping; infinite if fp16 overflowed and the step was skipped"
            ),
            "logit_scale": Column(_NUMBER, "the logarithm of the inverse temperature"),
            "samples_per_second": Column(_NUMBER, "throughput, over all pools", True),
            "update_samples": Column(_INTEGER, "samples of the batch from the stage's own chunk"),
            "buffer_samples": Column(_INTEGER, "samples of the batch from earlier chunks"),
            "pretraining_samples": Column(
                _INTEGER, "samples of the batch from the pretraining pool"
            ),
        },
    ),
    "datasets": Table(
        "a dataset as it stands in its shards",
        {
            "dataset": DATASET,
            "task": Column(_TEXT, "`classification` or `retrieval`"),
            "domain": Column(_TEXT, "the declared domain"),
            "licence": Column(_TEXT, "the declared licence"),
            "concepts": Column(_INTEGER, "how many concepts have samples"),
            "train_samples": Column(_INTEGER, "samples of the training split"),
            "test_samples": Column(_INTEGER, "samples of the test split"),
            "quarantined": Column(_INTEGER, "images left out because they cannot be decoded"),
            "transparent": Column(_INTEGER, "images with transparency"),
            "flat": Column(_INTEGER, "images of a single colour"),
            "bytes": Column(_INTEGER, "size of all shards"),
        },
    ),
    "samples": Table(
        "an image of a dataset, with its captions",
        {
            "dataset": DATASET,
            "split": Column(_TEXT, "`train` or `test`"),
            "key": Column(_TEXT, "the sample's name, unique within the split"),
            "concept": _CONCEPT,
            "captions": Column(pl.List(pl.String()), "the sample's captions; may be empty"),
            "digest": Column(_TEXT, "identifies the stored image"),
        },
    ),
    "orders": Table(
        "a concept and its position in a stream; see the view `streams`",
        {
            "stream": _STREAM,
            "position": Column(_INTEGER, "the concept's place in the stream, counted from 1"),
            "dataset": DATASET,
            "concept": _CONCEPT,
            "figure": Column(
                _NUMBER, "what the order sorts by, such as a score or a year; null if nothing", True
            ),
        },
    ),
    "chunks": Table(
        "a concept, its position in its chunk, and the samples it brings to a stage",
        {
            "stream": _STREAM,
            "stage": Column(_INTEGER, "the stage that trains on the chunk, counted from 1"),
            "position": Column(_INTEGER, "the concept's place in the chunk, counted from 1"),
            "dataset": DATASET,
            "concept": _CONCEPT,
            "samples": Column(_INTEGER, "how many training samples the concept brings"),
        },
    ),
    "comparisons": Table(
        "a metric, or a dataset's score, of a method against the baseline of a comparison, at "
        "their last stages",
        {
            "comparison": _COMPARISON,
            "method": Column(_TEXT, "the method's name: an experiment's, or its replicates'"),
            "baseline": Column(_TEXT, "what it is compared with, another method"),
            "kind": Column(_TEXT, "`metric` or `dataset`"),
            "name": Column(_TEXT, "the metric's name as a column of `scores`, or the dataset's"),
            "role": Column(_TEXT, "of a dataset: " + ROLE.meaning + "; null of a metric", True),
            "value": Column(_NUMBER, "of the method, in percent: the mean over replicates"),
            "baseline_value": Column(_NUMBER, "the same of the baseline"),
            "difference": Column(_NUMBER, "`value` less `baseline_value`, in points"),
            "low": Column(_NUMBER, "the lower end of its 95 % interval"),
            "high": Column(_NUMBER, "the upper end of its 95 % interval"),
            "p": Column(
                _NUMBER,
                "that there is no difference: McNemar's exact test for one replicate of a "
                "classification dataset, else Student's t",
            ),
            "corrected_p": Column(
                _NUMBER, "`p` after Holm's correction for all datasets; null of a metric", True
            ),
            "replicates": Column(_INTEGER, "how many pairs of replicates"),
            "replicates_needed": Column(
                _INTEGER,
                "how many would see a difference as large in 80 % of cases; null where no number "
                "would do, or nobody can tell",
                True,
            ),
            "queries": Column(_INTEGER, "how many test images and captions"),
            "verdict": Column(
                _TEXT,
                "of a metric: `better`, `worse`, `equivalent`, `no worse` or `too little to tell`; "
                "null of a dataset",
                True,
            ),
            "margin": Column(
                _NUMBER, "points within which methods count as equivalent; null if not asked", True
            ),
        },
    ),
    "comparison_pairs": Table(
        "two methods of a comparison over all its datasets",
        {
            "comparison": _COMPARISON,
            "first": Column(_TEXT, "a method"),
            "second": Column(_TEXT, "another method"),
            "difference": Column(_NUMBER, "mean score of `first` less that of `second`, in points"),
            "wins": Column(_INTEGER, "datasets on which `first` is higher"),
            "losses": Column(_INTEGER, "datasets on which `first` is lower"),
            "p": Column(_NUMBER, "of Wilcoxon's signed rank test, after Holm's for all pairs"),
        },
    ),
    "near_duplicates": Table(
        "a picture that a stage brings, and the nearest one like it of each kind and test set",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "kind": Column(
                _TEXT,
                "what the other is: `leakage`, a test image that the stage is evaluated on; "
                "`earlier`, one that an earlier stage brought; `within`, one before it in the "
                "same stage",
            ),
            "dataset": DATASET,
            "key": Column(_TEXT, "the training sample's name"),
            "other_dataset": Column(_TEXT, "the dataset of the other"),
            "other_split": Column(_TEXT, "its split, `train` or `test`"),
            "other_key": Column(_TEXT, "its name"),
            "distance": Column(
                _INTEGER,
                "bits of 64 in which their perceptual hashes differ; null of a pair that was "
                "found by features",
                True,
            ),
            "similarity": Column(
                _NUMBER,
                "cosine of θ₀'s features of the two; null of a pair that was found by hashes",
                True,
            ),
        },
    ),
    "gallery_indexes": Table(
        "an index of a gallery, and how much of an exact search it finds",
        {
            "gallery": Column(_TEXT, "the gallery's name, that of its file"),
            "release_name": Column(_TEXT, "the name whose live release embeds it"),
            "release": Column(
                _INTEGER, "the number of the release that embedded it; null of none", True
            ),
            "type": Column(_TEXT, "the kind of index: `hnsw`"),
            "m": Column(_INTEGER, "neighbours that a vector is connected with"),
            "ef_construction": Column(_INTEGER, "candidates for each vector while it was built"),
            "ef_search": Column(_INTEGER, "candidates that a search looks at"),
            "rows": Column(_INTEGER, "embeddings in it"),
            "dimensions": Column(_INTEGER, "numbers of an embedding"),
            "recall": Column(
                _NUMBER, "share of the 10 nearest that it finds, in percent; null of no rows", True
            ),
            "queries": Column(
                _INTEGER, "rows of the gallery that it was measured with, none its own answer"
            ),
        },
    ),
    "gallery_drift": Table(
        "a measure of how far what is live is from what embedded a gallery, on a sample of its "
        "rows; none where the same embedded it",
        {
            "gallery": Column(_TEXT, "the gallery's name, that of its file"),
            "release_name": Column(_TEXT, "the name whose releases they are"),
            "release": Column(_INTEGER, "the number of the release that embedded it", True),
            "live": Column(_INTEGER, "the number of the release that was live", True),
            "concept": Column(_TEXT, "of this concept's rows alone; null for all rows", True),
            "metric": Column(
                _TEXT,
                "`cosine` of the two embeddings of a row, or a recall among the gallery's "
                "embeddings: of queries by what embedded it (`recall_old_queries`), by what is "
                "live (`recall_new_queries`), and by what is live through a linear map "
                "(`recall_compensated`)",
            ),
            "value": Column(
                _NUMBER,
                "a mean cosine; of a recall, the share of the 10 nearest that what is live alone "
                "would give, in percent",
            ),
            "samples": Column(_INTEGER, "rows, or queries, that it is a mean of"),
        },
    ),
    "inspections": Table(
        "a sample that a stage brings, as a model sees it",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "key": Column(_TEXT, "the training sample's name"),
            "concept": _CONCEPT,
            "similarity": Column(
                _NUMBER, "cosine of the image and the one of its captions that fits least"
            ),
            "confidence": Column(
                _NUMBER,
                "zero-shot probability of its concept among those of its dataset; null for "
                "retrieval",
                True,
            ),
            "predicted": Column(
                _TEXT, "the most probable concept, zero-shot; null for retrieval", True
            ),
            "label_quality": Column(
                _NUMBER,
                "probability of its concept for a linear probe that was trained on other samples "
                "of the stage; null where nobody looked for wrong labels",
                True,
            ),
            "suggested": Column(_TEXT, "the most probable concept for this probe", True),
            "doubtful": Column(
                pl.Boolean(), "whether the label is probably wrong, by confident learning", True
            ),
            "novelty": Column(
                _NUMBER,
                "probability that it is new, for a classifier that tells the stage's samples from "
                "earlier ones; null where it was not looked at",
                True,
            ),
        },
    ),
    "drifts": Table(
        "what a stage brings, held against all that came before",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "newer": Column(_INTEGER, "samples of the stage that were looked at"),
            "earlier": Column(_INTEGER, "samples of earlier stages that were looked at"),
            "mmd": Column(
                _NUMBER,
                "squared maximum mean discrepancy of their features, an unbiased estimate; null "
                "where there are too few samples",
                True,
            ),
            "p": Column(_NUMBER, "that chance alone gives as much, by permutation", True),
            "auc": Column(
                _NUMBER,
                "area under the ROC curve of a classifier that tells them apart; 0.5: not at all",
                True,
            ),
        },
    ),
    "gates": Table(
        "what a gate of a release says of a stage",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "release": Column(_TEXT, "the name that the stage would be live under"),
            "reference": Column(
                _INTEGER, "the release that it was held against; null if nothing was live", True
            ),
            "gate": Column(
                _TEXT,
                "the gate, with the dataset or concept that it protects, or what of data or cost",
            ),
            "passed": Column(pl.Boolean(), "whether the stage passes"),
            "asked": Column(_TEXT, "what must hold"),
            "said": Column(_TEXT, "what was found, in words"),
            "estimate": Column(
                _NUMBER, "the score, error, share, ratio or difference, in percent or points", True
            ),
            "low": Column(_NUMBER, "the lower end of its 95 % interval", True),
            "high": Column(_NUMBER, "the upper end", True),
            "limit": Column(_NUMBER, "what it is held against", True),
            "samples": Column(
                _INTEGER, "test samples that it comes from, or samples that the stage brings", True
            ),
            "samples_needed": Column(
                _INTEGER, "about how many would tell, where these are too few", True
            ),
        },
    ),
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
