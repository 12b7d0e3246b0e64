"""The scores of a stream of stages: KA, ZS, GM, backward transfer and forgetting.

All are in percent, from the tables of evaluations. Nothing here loads PyTorch. Sums are rounded
exactly (`math.fsum`), so no order of rows changes the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import polars as pl

from fomo_dagster.errors import DataError
from fomo_dagster.metrics import (
    BACKWARD_TRANSFER,
    FORGETTING,
    GEOMETRIC_MEAN,
    KNOWLEDGE_ACCUMULATION,
    SCORE,
    SCORES,
    ZERO_SHOT_RETENTION,
)


def stage_scores(
    evaluations: pl.DataFrame,
    concept_scores: pl.DataFrame,
    chunks: pl.DataFrame,
    since: Mapping[str, int] = MappingProxyType({}),
) -> pl.DataFrame:
    """`SCORES`, one row a stage.

    evaluations: stage (0..T), dataset, role (`adaptation` or `held_out`), metric, value; only the
    metric `score` counts. concept_scores: stage, dataset, role, concept, value; only adaptation
    counts. chunks: stage (1..T), dataset, concept: what each stage brought. since: dataset → the
    first stage that is evaluated on it, where that is not stage 0, as in a growing stream; the
    means of a stage are then over the datasets that were there by then.

    KA and ZS are the means over the adaptation and the held-out datasets, GM = √(KA·ZS)
    (FoMo-in-Flux, arXiv 2408.14471). With R[t][i] the mean score of chunk i's concepts after stage
    t, backward transfer is BWT_t = mean_{i<t}(R[t][i] - R[i][i]) (Lopez-Paz and Ranzato 2017,
    arXiv 1706.08840), and forgetting F_t = mean_{i<t}(max_{i≤s≤t} R[s][i] - R[t][i]) (Chaudhry et
    al. 2018, arXiv 1801.10112; here the maximum begins with the stage that brought the chunk, and
    ends with t itself, so that F_t ≥ 0). Concepts without test samples, and chunks of none but
    such, are left out.

    Raises `DataError` if a stage, or a dataset or concept at one stage, is missing or given
    twice: a mean over what happens to be there would not compare with the others.
    """
    main = evaluations.filter(pl.col("metric") == SCORE)
    stages = _stages(main)
    datasets = _series(main, ["role", "dataset"], stages, since)
    of_chunks = concept_scores.filter(pl.col("role") == "adaptation").join(
        chunks.select("dataset", "concept", chunk="stage"), on=["dataset", "concept"]
    )
    concepts = _series(of_chunks, ["chunk", "dataset", "concept"], stages, since)
    means: dict[int, list[float]] = {}  # R[·][i] by chunk i
    for chunk in of_chunks["chunk"].unique():
        members = [series for key, series in concepts.items() if key[0] == chunk]
        means[chunk] = [_mean(scores) for scores in zip(*members, strict=True)]
    rows = []
    for stage in stages:
        adaptation, held_out = (
            [
                series[stage]
                for (of_role, dataset), series in datasets.items()
                if of_role == role and stage >= since.get(dataset, 0)
            ]
            for role in ("adaptation", "held_out")
        )
        rows.append(
            {
                "stage": stage,
                **accumulation_and_retention(adaptation, held_out),
                **_transfer(means, stage),
            }
        )
    return pl.DataFrame(rows, schema=SCORES)


def accumulation_and_retention(
    adaptation: Sequence[float], held_out: Sequence[float]
) -> dict[str, float | None]:
    """KA, ZS and GM of one stage from its datasets' scores, by name; None for those not defined."""
    accumulation = _mean(adaptation) if adaptation else None
    retention = _mean(held_out) if held_out else None
    both = None
    if accumulation is not None and retention is not None:
        both = math.sqrt(accumulation * retention)
    return {
        KNOWLEDGE_ACCUMULATION.name: accumulation,
        ZERO_SHOT_RETENTION.name: retention,
        GEOMETRIC_MEAN.name: both,
    }


def _transfer(means: Mapping[int, Sequence[float]], stage: int) -> dict[str, float | None]:
    """BWT_t and F_t from R (`means[i][t]`), by names; None if there is no earlier chunk."""
    earlier = [(chunk, scores) for chunk, scores in means.items() if chunk < stage]
    if not earlier:
        return {BACKWARD_TRANSFER.name: None, FORGETTING.name: None}
    transfer = _mean([scores[stage] - scores[chunk] for chunk, scores in earlier])
    forgetting = _mean(
        [max(scores[chunk : stage + 1]) - scores[stage] for chunk, scores in earlier]
    )
    return {BACKWARD_TRANSFER.name: transfer, FORGETTING.name: forgetting}


def _stages(evaluations: pl.DataFrame) -> list[int]:
    """The stages 0..T, or `DataError` where one is missing."""
    stages: list[int] = evaluations["stage"].unique().sort().to_list()
    missing = sorted(set(range(max(stages, default=0) + 1)) - set(stages))
    if missing:
        raise DataError(
            f"scores need the evaluation of every stage from 0 on, but that of {missing} "
            "is missing: materialise the evaluations first"
        )
    return stages


def _series(
    scores: pl.DataFrame, by: list[str], stages: list[int], since: Mapping[str, int]
) -> dict[tuple[Any, ...], list[float]]:
    """The values of each group stage by stage, NaN before its dataset's first one, or `DataError`
    where a group has not one a stage."""
    groups = scores.sort("stage").group_by(by, maintain_order=True).agg("stage", "value")
    series = {}
    for *key, present, values in groups.iter_rows():
        first = since.get(key[1], 0)  # `by` has the dataset second
        if present != stages[first:]:
            wrong = [stage for stage in stages if present.count(stage) != (stage >= first)]
            named = ", ".join(f"{name} {value!r}" for name, value in zip(by, key, strict=True))
            raise DataError(
                f"scores need exactly one value per stage, but {named} has none or several "
                f"at the stages {wrong}: materialise the evaluations again"
            )
        series[tuple(key)] = [math.nan] * first + values
    return series


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
