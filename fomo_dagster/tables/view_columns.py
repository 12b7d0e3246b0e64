"""The views: what a row states, and the meaning of each column, of a table's view likewise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from fomo_dagster.metrics import BACKWARD_TRANSFER, FORGETTING, STAGE_METRICS
from fomo_dagster.tables.columns import DATASET, EXPERIMENT, ROLE, STAGE
from fomo_dagster.tables.schemas import TABLES


class View(NamedTuple):
    """A view that is computed from tables and heads. columns: name → meaning."""

    description: str
    columns: Mapping[str, str]


PREDICTION_COLUMNS: Mapping[str, pl.DataType] = {
    "query": pl.String(),
    "key": pl.String(),
    "caption": pl.Int64(),
    "concept": pl.String(),
    "rank": pl.Int64(),
    "predicted": pl.String(),
    "probability": pl.Float16(),
    "probability_of_predicted": pl.Float16(),
    "margin": pl.Float16(),
}
"""The columns of a file of predictions; the view `predictions` says what they mean."""

GALLERY_COLUMNS: Mapping[str, pl.DataType] = {
    "split": pl.String(),
    "key": pl.String(),
    "concept": pl.String(),
    "digest": pl.String(),
    "text": pl.String(),
    "embedding": pl.List(pl.Float32()),
}
"""The columns of a file of embeddings; the view `galleries` says what they mean."""

OF_EVERY_TABLE: Mapping[str, str] = {
    "asset": "the asset that the row belongs to",
    "asset_digest": "the asset's digest; rows of earlier digests are not shown",
}
"""The columns that the view of a table has beside the table's own."""

RUNS: Mapping[str, tuple[str, str]] = {
    "asset": ("VARCHAR", "the asset's key, with `/` between its parts"),
    "kind": ("VARCHAR", "the kind of asset"),
    "experiment": ("VARCHAR", EXPERIMENT.meaning + "; null for what experiments share"),
    "stage": ("BIGINT", STAGE.meaning + "; null for what belongs to no stage"),
    "digest": ("VARCHAR", "identifies the recipes that the asset had then"),
    "status": ("VARCHAR", "`computed`, or `hit` if all was in the store"),
    "computed": ("VARCHAR[]", "the artifacts that were made"),
    "began": ("TIMESTAMP", "when (UTC)"),
    "seconds": ("DOUBLE", "how long it took, with waiting and fetching"),
    "making_seconds": (
        "DOUBLE",
        "how long it took to make them, one after another; 0 of a hit",
    ),
    "samples": ("BIGINT", "samples worked through; null if nothing was made of any"),
    "flops": ("DOUBLE", "counted floating point operations; null if not counted"),
    "energy_joules": ("DOUBLE", "energy that the devices used; null if not measured"),
    "device": ("VARCHAR", "the kind of device that it was given: `cuda`, `cpu`, …; null of a hit"),
    "devices": (
        "BIGINT",
        "how many devices made each of these artifacts together, so that `making_seconds` times it "
        "is their time; 0 of a hit",
    ),
    "executor": ("VARCHAR", "what computed: `in_process`, `processes`, `ray` or `kubernetes`"),
    "person": ("VARCHAR", "the user's name on the machine of the run"),
    "host": ("VARCHAR", "the machine of the run"),
    "process": ("BIGINT", "the process of the run"),
    "run": ("VARCHAR", "Dagster's run"),
    "versions": ("JSON", "package → version of what it was computed with"),
}
"""Column of the view `runs` → its type in SQL and its meaning."""

RELEASES: Mapping[str, tuple[str, str]] = {
    "name": ("VARCHAR", "the release name"),
    "entry": ("BIGINT", "the place of the record among those of its name, counted from 1"),
    "kind": ("VARCHAR", "`release`, `rollback`, `refusal`, `alias` or `files`"),
    "recorded_at": ("TIMESTAMP", "when (UTC)"),
    "live": ("BIGINT", "the number that is live from then on; null if nothing is"),
    "release": (
        "BIGINT",
        "the number given, gone back to, named or written as files; null of a refusal, and where "
        "an alias was removed",
    ),
    "alias": ("VARCHAR", "the alias that was given or removed; null of other records"),
    "reference": ("BIGINT", "the number that the stage was held against; null if none was live"),
    "approval": ("VARCHAR", "`automatic` or `manual`, of a release"),
    "reason": ("VARCHAR", "what a person gave as one"),
    "person": ("VARCHAR", "the user's name on the machine that recorded it"),
    "host": ("VARCHAR", "that machine"),
    "candidate": (
        "JSON",
        "of a release or a refusal: experiment, stage, address of the weights, backbone, digests "
        "of the evaluations, roles of the datasets, scores, lineage: asset → data version of all "
        "that the weights were made from, and provenance: the datasets with their licences",
    ),
    "gates": ("JSON", "of a release or a refusal: what each gate found"),
    "forms": ("JSON", "the forms that were written, of a record of files"),
    "files": ("JSON", "kind and digest in the store of what was written; null of other records"),
}
"""Column of the view `releases`, as of `RUNS`."""

VIEWS: Mapping[str, View] = {
    "artifacts": View(
        "an asset as it is now, and what making it took",
        {
            "asset": "the asset's key, with `/` between its parts",
            "kind": "the kind of asset, such as `shards`, `trained` or `scores`",
            "experiment": EXPERIMENT.meaning + "; null for what experiments share",
            "stage": STAGE.meaning + "; null for what belongs to no stage",
            "makes_weights": "whether its cost counts for the weights of its experiment",
            "digest": "identifies its recipes",
            "data_version": "what downstream assets and Dagster see of it",
            "code_version": "the version of the code that makes this kind",
            "status": "what the last run found: `computed`, or `hit` if it was in the store",
            "recorded_at": "when the last of its artifacts was made (UTC)",
            "seconds": "how long making its artifacts took, whoever made them",
            "recipes": "artifact name → recipe",
            "artifacts": "artifact name → kind and digest, its address in the store",
            "facts": "what downstream recipes need to know of it",
            "cost": "what making its artifacts took: samples, FLOPs, seconds, memory, energy",
            "checked_at": "when a run or job last materialised it (UTC)",
        },
    ),
    "damaged": View(
        "an asset whose head cannot be read, so that the other views leave it out",
        {
            "asset": "the asset's key, with `/` between its parts",
            "experiment": "the first part of the key: the experiment's name, if it is one's asset",
            "head": "the damaged file, which `fomo run` writes again",
        },
    ),
    "predictions": View(
        "what the weights of a stage found for a test sample: for an image, or in retrieval for a "
        "caption too; none of evaluations from before predictions were kept",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "dataset": DATASET.meaning,
            "role": ROLE.meaning,
            "task": "`classification` or `retrieval`",
            "query": "what was looked up: `image`, or `caption`",
            "key": "the sample's name, or that of the caption's image",
            "caption": "the caption's place among its image's, counted from 0; null for an image",
            "concept": "the image's concept",
            "rank": "the place of the first right answer, counted from 0",
            "predicted": "the answer in first place: a class, or in retrieval an image's key",
            "probability": "what the softmax over all classes gives to the right one, from 0 to 1; "
            "null in retrieval",
            "probability_of_predicted": "the same of the predicted class",
            "margin": "similarity (a cosine) of the right answer less the highest of a wrong one; "
            "null where no answer is wrong",
            **OF_EVERY_TABLE,
        },
    ),
    "confusions": View(
        "a class of a classification dataset, one that was predicted for it, and how often",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "dataset": DATASET.meaning,
            "role": ROLE.meaning,
            "concept": "the right class",
            "predicted": "the predicted class, which may be the right one",
            "samples": "how many test samples",
        },
    ),
    "galleries": View(
        "an image or a text of a gallery, and its embedding; none where nothing was live yet",
        {
            "gallery": "the gallery's name, that of its file",
            "release_name": "the name whose live release embeds it",
            "release": "the number of the release that embedded it",
            "dataset": DATASET.meaning,
            "split": "the sample's split, `train` or `test`",
            "key": "the sample's name; of a text, that of the first sample with it",
            "concept": "the sample's concept",
            "digest": "identifies what was embedded: the stored image, or the text",
            "text": "the text that was embedded; of an image its first caption, null without one",
            "embedding": "as many numbers as the weights give, of length 1: an inner product of "
            "two is their cosine, which means nothing between different releases",
            **OF_EVERY_TABLE,
        },
    ),
    "runs": View(
        "a time that an asset was materialised, by whoever shares this home; of those that were "
        "superseded since as well",
        {name: meaning for name, (_, meaning) in RUNS.items()}
        | {"is_current": "whether the asset is still what it was made then"},
    ),
    "releases": View(
        "what happened to a release name: a stage that went live or was refused, a rollback, an "
        "alias",
        {name: meaning for name, (_, meaning) in RELEASES.items()}
        | {
            "experiment": "the candidate's experiment",
            "stage": "its stage",
        },
    ),
    "streams": View(
        "a concept, its position in a stream, the stage it comes to, and the order's key figure",
        {
            **{name: column.meaning for name, column in TABLES["orders"].columns.items()},
            "stage": "the stage that brings the concept; null before the stream is cut",
        },
    ),
    "matrix": View(
        "the mean score that a stage's weights have on the concepts of a chunk: below the diagonal "
        "what was learnt and kept or forgotten, above it what is still to come",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "chunk": "the stage that trains on the chunk, counted from 1",
            "score": "mean of the concepts' scores, in percent",
            "concepts": "how many concepts of the chunk have test samples",
            "chance": "the mean of what guessing scores on them, in percent; null if it is not "
            "known of a dataset",
        },
    ),
    "transfer": View(
        "what an experiment's stages up to one did to the concepts of chunks, of the streams that "
        "have several: means over chunks of the view `matrix`",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "forward_transfer": "what was gained on a chunk before it was trained on: the score of "
            "the stage before less that of θ₀, in points, over the chunks from 2 to the stage; "
            "null before stage 2",
            **{
                metric.name: f"{metric.description} ({metric.unit}), as in `scores`"
                for metric in (BACKWARD_TRANSFER, FORGETTING)
            },
            "plasticity": "score on a chunk right after the stage that trains on it, in percent, "
            "over the chunks up to the stage",
            "stability": "score that is left on the chunks before the stage's, in percent; null "
            "at stage 1",
        },
    ),
    "windows": View(
        "the score that a stage's weights have on the test samples of a time window, of streams "
        "with dates: those in the order `time_incremental`, by the years of their datasets, and "
        "growing ones, by arrival",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "trained_until": "the latest window that was trained on by then; null of θ₀",
            "tested_on": "the window: a year, or in a growing stream the dataset that arrived",
            "distance": "how many windows later this is than `trained_until`: negative before it, "
            "0 the same, positive after it; null of θ₀",
            "score": "mean score of its test samples, in percent; of several datasets, the mean of "
            "theirs",
            "chance": "the same of guessing; null if it is not known of a dataset",
            "datasets": "how many datasets of the stream are of the window",
            "samples": "how many test samples",
        },
    ),
    "published": View(
        "a dataset of the benchmark, and the zero-shot score that its authors publish",
        {
            "dataset": "the benchmark's handle",
            "zero_shot": "the published score, in percent",
            "shift_of": "the dataset whose classes it shows in pictures of another distribution, "
            "which need not be of the benchmark; null if none",
        },
    ),
    "chances": View(
        "the scores that guessing has at a stage, to set beside those of the view `scores`",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "knowledge_accumulation": "mean chance over the adaptation datasets, in percent; null "
            "if it is not known of one",
            "zero_shot_retention": "the same of the held-out datasets",
            "geometric_mean": "√(KA · ZS) of these two",
        },
    ),
    "shifts": View(
        "the mean score of a stage's weights on the benchmark's datasets that show the classes of "
        "one in pictures of another distribution",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning,
            "shift_of": "the dataset whose classes they are: `imagenet` or `domainnet`",
            "score": "mean of the shifted datasets' scores, in percent",
            "score_of_original": "score on that dataset itself; null if it is not evaluated",
            "chance": "the mean of what guessing scores on the shifted datasets, in percent; null "
            "if it is not known of one",
            "datasets": "how many shifted datasets are evaluated",
        },
    ),
    "costs": View(
        "what all trainings and merges of an experiment took up to a stage, and the most memory",
        {
            "experiment": EXPERIMENT.meaning,
            "stage": STAGE.meaning + ", which costs the experiment nothing",
            "samples": "samples trained on; null if a training did not record them",
            "flops": "counted floating point operations; null if a step did not record them",
            "seconds": "time that the trainings and merges took when they were made",
            "energy_joules": "energy that the devices used; null if a step did not record it",
            "peak_device_memory_bytes": "the most that PyTorch allocated on a device",
            "peak_process_memory_bytes": "the most by which a process's memory grew",
        },
    ),
    "leaderboard": View(
        "the scores of an experiment's last stage, their means over stages 1..T, and the samples "
        "and seconds that its weights took",
        {
            "experiment": EXPERIMENT.meaning,
            "stages": "the last stage",
            **{
                metric.name: f"{metric.label} of the last stage ({metric.unit})"
                for metric in STAGE_METRICS
                if metric.on_leaderboard
            },
            **{
                f"mean_{metric.name}": f"mean {metric.label} over stages 1..T ({metric.unit})"
                for metric in STAGE_METRICS
                if metric.with_mean
            },
            "samples": "samples that its trainings saw; null if one of its heads is damaged",
            "seconds": "time that its trainings and merges took; null likewise",
        },
    ),
}


DESCRIPTIONS: Mapping[str, str] = {
    **{name: table.description for name, table in TABLES.items()},
    **{name: view.description for name, view in VIEWS.items()},
}
"""Table or view → what a row of it is."""


def comments_of(view: str) -> Mapping[str, str]:
    """Column → meaning, for a view of any kind."""
    if view in VIEWS:
        return VIEWS[view].columns
    own = {name: column.meaning for name, column in TABLES[view].columns.items()}
    return {**own, **OF_EVERY_TABLE}
