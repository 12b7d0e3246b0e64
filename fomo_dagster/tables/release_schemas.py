"""The tables about what arrives, what goes live, and what is embedded by it; see `schemas.py`."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fomo_dagster.tables.columns import (
    CONCEPT,
    DATASET,
    EXPERIMENT,
    INTEGER,
    NUMBER,
    STAGE,
    TEXT,
    Column,
    Table,
)

RELEASE_TABLES: Mapping[str, Table] = {
    "near_duplicates": Table(
        "a picture that a stage brings or, of past and learnt leakage, that was learnt before, and "
        "the nearest one like it of each kind and test set",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "kind": Column(
                TEXT,
                "what the other is: `leakage`, a test image that the stage is evaluated on; "
                "`past_leakage`, one that came after the sample, which an earlier stage brought; "
                "`learnt_leakage`, one that is near what the release learnt which the stage starts "
                "from, of what is not in its stream now; `earlier`, one that an earlier stage "
                "brought; `within`, one before it in the same stage",
            ),
            "dataset": DATASET,
            "key": Column(TEXT, "the training sample's name"),
            "other_dataset": Column(TEXT, "the dataset of the other"),
            "other_split": Column(TEXT, "its split, `train` or `test`"),
            "other_key": Column(TEXT, "its name"),
            "distance": Column(
                INTEGER,
                "bits of 64 in which their perceptual hashes differ; null of a pair that was "
                "found by features",
                True,
            ),
            "similarity": Column(
                NUMBER,
                "cosine of θ₀'s features of the two; null of a pair that was found by hashes",
                True,
            ),
        },
    ),
    "gallery_indexes": Table(
        "an index of a gallery, and how much of an exact search it finds",
        {
            "gallery": Column(TEXT, "the gallery's name, that of its file"),
            "release_name": Column(TEXT, "the name whose live release embeds it"),
            "release": Column(
                INTEGER, "the number of the release that embedded it; null of none", True
            ),
            "type": Column(TEXT, "the kind of index: `hnsw`"),
            "m": Column(INTEGER, "neighbours that a vector is connected with"),
            "ef_construction": Column(INTEGER, "candidates for each vector while it was built"),
            "ef_search": Column(INTEGER, "candidates that a search looks at"),
            "rows": Column(INTEGER, "embeddings in it"),
            "dimensions": Column(INTEGER, "numbers of an embedding"),
            "recall": Column(
                NUMBER, "share of the 10 nearest that it finds, in percent; null of no rows", True
            ),
            "queries": Column(
                INTEGER, "rows of the gallery that it was measured with, none its own answer"
            ),
        },
    ),
    "gallery_drift": Table(
        "a measure of how far what is live is from what embedded a gallery, on a sample of its "
        "rows; none where the same embedded it",
        {
            "gallery": Column(TEXT, "the gallery's name, that of its file"),
            "release_name": Column(TEXT, "the name whose releases they are"),
            "release": Column(INTEGER, "the number of the release that embedded it", True),
            "live": Column(INTEGER, "the number of the release that was live", True),
            "concept": Column(TEXT, "of this concept's rows alone; null for all rows", True),
            "metric": Column(
                TEXT,
                "`cosine` of the two embeddings of a row, or a recall among the gallery's "
                "embeddings: of queries by what embedded it (`recall_old_queries`), by what is "
                "live (`recall_new_queries`), and by what is live through a linear map "
                "(`recall_compensated`)",
            ),
            "value": Column(
                NUMBER,
                "a mean cosine; of a recall, the share of the 10 nearest that what is live alone "
                "would give, in percent",
            ),
            "low": Column(NUMBER, "the lower end of its 95 % interval; null of one row", True),
            "high": Column(NUMBER, "the upper end of its 95 % interval", True),
            "samples": Column(INTEGER, "rows, or queries, that it is a mean of"),
        },
    ),
    "inspections": Table(
        "a sample that a stage brings, as a model sees it",
        {
            "experiment": EXPERIMENT,
            "stage": STAGE,
            "dataset": DATASET,
            "key": Column(TEXT, "the training sample's name"),
            "concept": CONCEPT,
            "similarity": Column(
                NUMBER, "cosine of the image and the one of its captions that fits least"
            ),
            "confidence": Column(
                NUMBER,
                "zero-shot probability of its concept among those of its dataset; null for "
                "retrieval",
                True,
            ),
            "predicted": Column(
                TEXT, "the most probable concept, zero-shot; null for retrieval", True
            ),
            "label_quality": Column(
                NUMBER,
                "probability of its concept for a linear probe that was trained on other samples "
                "of the stage; null where nobody looked for wrong labels",
                True,
            ),
            "suggested": Column(TEXT, "the most probable concept for this probe", True),
            "doubtful": Column(
                pl.Boolean(), "whether the label is probably wrong, by confident learning", True
            ),
            "novelty": Column(
                NUMBER,
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
            "newer": Column(INTEGER, "samples of the stage that were looked at"),
            "earlier": Column(INTEGER, "samples of earlier stages that were looked at"),
            "mmd": Column(
                NUMBER,
                "squared maximum mean discrepancy of their features, an unbiased estimate; null "
                "where there are too few samples",
                True,
            ),
            "p": Column(NUMBER, "that chance alone gives as much, by permutation", True),
            "auc": Column(
                NUMBER,
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
            "release": Column(TEXT, "the name that the stage would be live under"),
            "reference": Column(
                INTEGER, "the release that it was held against; null if nothing was live", True
            ),
            "gate": Column(
                TEXT,
                "the gate, with the dataset or concept that it protects, or what of data or cost",
            ),
            "passed": Column(pl.Boolean(), "whether the stage passes"),
            "asked": Column(TEXT, "what must hold"),
            "said": Column(TEXT, "what was found, in words"),
            "estimate": Column(
                NUMBER,
                "the score, error, share, ratio or difference, in percent or points; of a "
                "gallery's cosine, from -1 to 1",
                True,
            ),
            "low": Column(NUMBER, "the lower end of its 95 % interval", True),
            "high": Column(NUMBER, "the upper end", True),
            "limit": Column(NUMBER, "what it is held against, in the same unit", True),
            "samples": Column(
                INTEGER,
                "test samples that it comes from, samples that the stage brings, or passes timed",
                True,
            ),
            "samples_needed": Column(
                INTEGER, "about how many would tell, where these are too few", True
            ),
        },
    ),
}
