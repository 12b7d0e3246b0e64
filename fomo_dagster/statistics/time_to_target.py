"""How long methods take to reach a target, and how they compare over several workloads.

As AlgoPerf scores training algorithms (Dahl et al., *Benchmarking neural network training
algorithms*, arXiv 2306.07179, section 5), with the performance profiles of Dolan and Moré (2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fomo_dagster.statistics.answers import Floats

MOST = 4.0
"""τ up to which AlgoPerf draws a profile."""


@dataclass(frozen=True)
class Reached:
    """Places in a sequence of values. first: where the target is reached first; held: from where on
    it is reached until the end. None where it is not."""

    first: int | None
    held: int | None


def reached(
    values: Sequence[float | None], target: float, best: Literal["high", "low"] = "high"
) -> Reached:
    """Where values are as good as the target or better; a value that is None is not."""
    good = [
        value is not None and (value >= target if best == "high" else value <= target)
        for value in values
    ]
    if True not in good:
        return Reached(None, None)
    last_bad = max((place for place, is_good in enumerate(good) if not is_good), default=-1)
    return Reached(good.index(True), last_bad + 1 if last_bad + 1 < len(good) else None)


def ratios(times: Floats) -> Floats:
    """(S, W), how many times as long each of S methods takes on W workloads as the fastest one.

    times: (S, W), infinite where the target is not reached, and then so is the ratio. Where the
    fastest takes no time, it is 1 for those that take none and infinite for all others.
    """
    fastest = times.min(axis=0)
    found = np.full(times.shape, np.inf)
    np.divide(times, fastest, out=found, where=(fastest > 0) & np.isfinite(times))
    found[(times == fastest) & (fastest == 0)] = 1.0
    return found


def performance_profiles(times: Floats, taus: Floats) -> Floats:
    """(S, K), ρ_s(τ): the share of workloads on which method s takes at most τ times as long as the
    fastest. times: as of `ratios`; taus: (K,)."""
    return np.asarray((ratios(times)[:, :, None] <= taus).mean(axis=1))


def benchmark_scores(times: Floats, most: float = MOST) -> Floats:
    """(S,), the area under each profile from τ = 1 to `most`, over most - 1: from 0, for a method
    that reaches no target in `most` times the fastest's time, to 1, for the fastest everywhere."""
    areas = np.clip(most - ratios(times), 0, None)
    return np.asarray(areas.mean(axis=1) / (most - 1))
