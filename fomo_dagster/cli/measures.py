"""The metrics that commands take by name: of a stage, of a dataset, of a training."""

from __future__ import annotations

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.metrics import GEOMETRIC_MEAN, SCORE, STAGE_METRICS, Metric
from fomo_dagster.tables.trajectories import TRAINING_LOSS


def metric_named(name: str | None, dataset: str | None) -> Metric:
    """The metric of a name or a short name, in letters of any size; with a dataset, one of a
    dataset. By default GM, and the score.

    Raises `InputError` where there is none.
    """
    metrics = {m.name: m for m in (*STAGE_METRICS, TRAINING_LOSS)}
    if dataset is not None:
        metrics = _of_datasets()
    asked = name or (GEOMETRIC_MEAN.name if dataset is None else SCORE)
    for metric in metrics.values():
        if asked.lower() in (metric.name.lower(), metric.label.lower()):
            return metric
    of = "a stage (one of a dataset takes --dataset)" if dataset is None else "a dataset"
    raise InputError(f"there is no metric {asked!r} of {of}: {nearest(asked, metrics)}")


def _of_datasets() -> dict[str, Metric]:
    from fomo_dagster.evaluation.classification import METRICS as OF_CLASSIFICATION
    from fomo_dagster.evaluation.retrieval import METRICS as OF_RETRIEVAL

    score = Metric(SCORE, "accuracy or recall@5")
    return {m.name: m for m in (score, *OF_CLASSIFICATION, *OF_RETRIEVAL)}
