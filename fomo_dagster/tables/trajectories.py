"""The values of a metric stage by stage, with what the stages up to there took."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.metrics import Metric, StageMetric
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.views import query

TRAINING_LOSS = Metric(
    "training_loss", "mean contrastive loss over the last tenth of a stage's steps", "nats", "low"
)
COSTS = ("steps", "samples", "flops", "seconds")

_EXPERIMENTS = """
SELECT s.experiment, e.* EXCLUDE (experiment, asset, asset_digest)
FROM (SELECT DISTINCT experiment FROM scores) AS s LEFT JOIN experiments AS e USING (experiment)
ORDER BY s.experiment
"""
_TRAJECTORIES = """
SELECT
    v.experiment, v.stage, v.dataset, v.value,
    CASE WHEN v.stage = 0 THEN 0 ELSE t.steps END::BIGINT AS steps,
    c.samples, c.flops, c.seconds
FROM ({values}) AS v
LEFT JOIN costs AS c USING (experiment, stage)
LEFT JOIN (
    SELECT experiment, stage, sum(count(*)) OVER (PARTITION BY experiment ORDER BY stage) AS steps
    FROM training_steps GROUP BY experiment, stage
) AS t USING (experiment, stage)
WHERE list_contains({experiments}, v.experiment)
ORDER BY v.experiment, v.dataset, v.stage
"""
_LOSSES = """
SELECT experiment, stage, NULL::VARCHAR AS dataset, avg(loss) AS value
FROM (
    SELECT experiment, stage, loss, 1 + step AS number,
        max(1 + step) OVER (PARTITION BY experiment, stage) AS steps
    FROM training_steps
)
WHERE number > 0.9 * steps GROUP BY experiment, stage
"""


def experiments_of(home: Path, references: Sequence[str]) -> pl.DataFrame:
    """The rows of the view `experiments` for those with scores that names stand for, and `name`,
    which an experiment shares with its replicates, else its own. `stream` and `backbone`: their
    names without the seeds of replicates; `own_backbone`: the name of its assets.

    A reference is an experiment, what replicates are of, a sweep, or a folder of `experiments/`,
    with `/` or `_` between its parts. Raises `InputError` for what names nothing that has scores.
    """
    known = query(home, _EXPERIMENTS).with_columns(
        name=pl.coalesce("replicate_of", "experiment"),
        own_backbone="backbone",
        **{column: _without_seeds(column) for column in ("stream", "backbone")},
    )
    found = []
    for reference in references:
        name, folder = reference.replace("/", "_"), f"experiments/{reference.strip('/')}/"
        chosen = [
            known.filter(replicate_of=name),  # first: a run from before there were any counts not
            known.filter(pl.col("sweep") == name),
            known.filter(experiment=name),
            known.filter(pl.col("file").str.starts_with(folder)),
        ]
        rows = next((rows for rows in chosen if rows.height), None)
        if rows is None:
            names = [*known["experiment"], *known["name"], *known["sweep"].drop_nulls()]
            said = nearest(name, names) if names else "no other experiment has any"
            raise InputError(
                f"{reference!r} has no scores yet: `fomo run {reference}` computes them ({said})"
            )
        found.append(rows)
    return pl.concat(found).unique(maintain_order=True)


def _without_seeds(column: str) -> pl.Expr:
    """The names of what replicates may have each for itself, without what tells them apart."""
    is_own = (pl.col(column).n_unique() > 1).over("replicate_of")
    is_alone = pl.len().over("replicate_of") == 1
    ends_in_it = pl.col(column).str.ends_with(pl.format("_{}", pl.col("replicate")))
    has_seeds = pl.col("replicate_of").is_not_null() & (is_own | (is_alone & ends_in_it))
    without = pl.struct(name=column, replicate="replicate").map_elements(
        lambda row: _without_label(row["name"], row["replicate"]), pl.String
    )
    return pl.when(has_seeds).then(without).otherwise(column)


def _without_label(name: str | None, replicate: str) -> str | None:
    """A name without the words that it shares with a replicate's, which may tell more seeds."""
    if name is None:
        return None
    words, label = name.split("_"), replicate.split("_")
    at, _, size = SequenceMatcher(None, words, label, autojunk=False).find_longest_match()
    return "_".join([*words[:at], *words[at + size :]]) or name


def trajectories(
    home: Path, experiments: Sequence[str], metric: Metric, datasets: Sequence[str] = ()
) -> pl.DataFrame:
    """A row for each experiment and stage: `experiment`, `stage`, `dataset`, `value`, and of COSTS
    what its trainings and merges took up to then; null where not known.

    metric: of a stage (`dataset` is null), TRAINING_LOSS, or one of datasets: of the given ones, by
    default of all. Raises `InputError` for a metric, or one of a dataset, that none of the
    experiments has.
    """
    if isinstance(metric, StageMetric):
        values = (
            f"SELECT experiment, stage, NULL::VARCHAR AS dataset, {metric.name} AS value "
            "FROM scores"
        )
    elif metric is TRAINING_LOSS:
        values = _LOSSES
    else:
        values = (
            "SELECT experiment, stage, dataset, value FROM evaluations "
            f"WHERE metric = {quoted(metric.name)}"
        )
    listed = f"[{', '.join(map(quoted, experiments))}]"
    rows = query(home, _TRAJECTORIES.format(values=values, experiments=listed))
    there = rows["dataset"].drop_nulls().unique().to_list()
    for dataset in datasets:
        if dataset not in there:
            raise InputError(
                f"none of {', '.join(experiments)} has {metric.name!r} of {dataset!r}: "
                + nearest(dataset, there)
            )
    if datasets:
        rows = rows.filter(pl.col("dataset").is_in(list(datasets)))
    if rows["value"].drop_nulls().is_empty():
        raise InputError(
            f"none of {', '.join(experiments)} has {metric.name}: choose another metric"
        )
    return rows
