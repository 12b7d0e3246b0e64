"""How much each of the models counts that are merged at once, by how old they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from fomo_dagster.merging.linear import Interpolation, WeightedMean
from fomo_dagster.merging.multislerp import MultiSlerp
from fomo_dagster.merging.statistics import StatisticsTechnique
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.technique import Technique

Weighting = Literal[
    "uniform", "linear", "sqrt", "quadratic", "cubic", "fifth", "tenth", "exponential",
    "logarithmic",
]  # fmt: skip

# The weight of the i-th of K models, oldest first and counted from 1, except for a common factor.
_CURVES: dict[Weighting, Callable[[int, int], float]] = {
    "uniform": lambda i, models: 1.0,
    "linear": lambda i, models: float(i),
    "sqrt": lambda i, models: math.sqrt(i),
    "quadratic": lambda i, models: float(i**2),
    "cubic": lambda i, models: float(i**3),
    "fifth": lambda i, models: float(i**5),
    "tenth": lambda i, models: float(i**10),
    "exponential": lambda i, models: 2.0 ** (i - models),  # 2^i, which ends at a thousand models
    "logarithmic": lambda i, models: math.log(i + 1),
}


def shares(weighting: Weighting, models: int, *, reversed: bool = False) -> tuple[float, ...]:
    """The shares of that many models, oldest first; they add up to 1.

    reversed: the oldest model counts the most.
    """
    weights = [_CURVES[weighting](i, models) for i in range(1, models + 1)]
    total = math.fsum(weights)
    ordered = weights[::-1] if reversed else weights
    return tuple(weight / total for weight in ordered)


def as_joint(
    technique: Technique, models: int, weighting: Weighting = "uniform", *, reversed: bool = False
) -> Technique:
    """The technique for that many models with these weights.

    A mean, Multi-SLERP or what takes statistics has the shares as its coefficients, and
    `interpolation` becomes such a mean. Techniques over task vectors have K times the shares, which
    are 1 on average: uniform is their default, and a sum (task arithmetic) grows no more than it
    does uniformly; means divide by them again.

    Raises `ValueError` for a technique that cannot merge any number of models, or not so weighted.
    """
    name = technique.technique
    if isinstance(technique, Interpolation):
        if technique.weight != 0.5 or technique.group_weights is not None:
            raise ValueError(
                f"interpolation's weight {technique.weight:g} and group_weights apply to two "
                "models, but a joint merge gets one more at every stage: leave them out, "
                "and give joint.weighting"
            )
        technique = WeightedMean(repair=technique.repair)
    for field in ("coefficients", "group_coefficients"):
        if getattr(technique, field, None) is not None:
            raise ValueError(
                f"{field} of {name} are for a fixed number of models, but a joint merge gets "
                "one more at every stage: leave them out, and give joint.weighting"
            )
    reason = technique.why_unsupported(models)
    if reason is not None:
        raise ValueError(f"{name} cannot merge all trained weights at once: {reason}")
    if weighting == "uniform":
        return technique
    parts = shares(weighting, models, reversed=reversed)
    if isinstance(technique, TaskVectorTechnique):
        return technique.model_copy(update={"coefficients": tuple(models * p for p in parts)})
    if isinstance(technique, WeightedMean | MultiSlerp | StatisticsTechnique):
        return technique.model_copy(update={"coefficients": parts})
    raise ValueError(
        f"{name} weighs all models equally, not {weighting}: leave out "
        "joint.weighting, or merge by weighted_mean or a technique over task "
        "vectors"
    )
