"""How much less compute one method takes than another for the same score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Saving:
    """level: the score that both reach; cost, of_other: what each took until then."""

    level: float
    cost: float
    of_other: float

    @property
    def times_less(self) -> float:
        """How many times less the one took than the other; below 1 where it took more."""
        return self.of_other / self.cost


def saving(
    costs: Sequence[float],
    scores: Sequence[float],
    other_costs: Sequence[float],
    other_scores: Sequence[float],
) -> Saving | None:
    """At the lower of the two highest scores. costs: what was taken up to each score, ascending.

    None if one of the two has that score at no cost, as θ₀ does, or none at all.
    """
    if not scores or not other_scores:
        return None
    level = min(max(scores), max(other_scores))
    cost, of_other = (
        first_reached(*curve, level) for curve in ((costs, scores), (other_costs, other_scores))
    )
    return Saving(level, cost, of_other) if cost > 0 and of_other > 0 else None


def first_reached(costs: Sequence[float], scores: Sequence[float], level: float) -> float:
    """The cost at which the straight lines between points first reach a level that is at most
    their highest score."""
    points = list(zip(costs, scores, strict=True))
    if points[0][1] >= level:
        return points[0][0]
    for (cost, score), (next_cost, next_score) in pairwise(points):
        if next_score >= level:
            return cost + (next_cost - cost) * (level - score) / (next_score - score)
    raise ValueError(f"no score reaches {level}")
