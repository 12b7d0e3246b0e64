"""Tests of whether one method is better than another, and how many replicates that takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.intervals import Interval

LEVEL = 0.05
POWER = 0.8
MOST_REPLICATES = 1000
DIGITS = 9  # of a point: means of the same counts differ by what rounding leaves, some 1e-14


def mcnemar(correct: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """The p of McNemar's exact test, from both sides: that of Q paired answers (Q,), as many turn
    from right to wrong as from wrong to right."""
    lost, won = int((~correct & other).sum()), int((correct & ~other).sum())
    return float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0


@dataclass(frozen=True)
class Pair:
    """Two methods over N datasets. difference: mean of `first` less `second`, in points; wins: the
    datasets on which `first` is higher, losses those on which it is lower; p: of Wilcoxon's signed
    rank test, with Holm's correction for all M pairs: at least M·2^(1-N)."""

    first: str
    second: str
    difference: float
    wins: int
    losses: int
    p: float


def pairwise(scores: Mapping[str, Floats]) -> list[Pair]:
    """All pairs of methods (Demšar 2006). scores: method → (N,), of the same N datasets. Scores are
    equal, and differences ties, if they are to DIGITS places."""
    pairs, values = [], []
    for first, second in itertools.combinations(scores, 2):
        difference = np.round(scores[first] - scores[second], DIGITS)
        differs = difference[difference != 0]
        p = float(stats.wilcoxon(differs).pvalue) if len(differs) else 1.0
        values.append(p)
        pairs.append((first, second, difference))
    corrected = holm(values)
    return [
        Pair(
            first, second, float(difference.mean()), int((difference > 0).sum()),
            int((difference < 0).sum()), p,
        )
        for (first, second, difference), p in zip(pairs, corrected, strict=True)
    ]  # fmt: skip


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(values, method="holm")[1]] if values else []


Verdict = Literal["better", "worse", "equivalent", "no worse", "too little to tell"]


def verdict(difference: Interval, margin: float | None) -> Verdict:
    """What an interval of a difference says.

    Equivalent: the interval at level 1 - 2·α lies within ±margin (two one-sided tests, Schuirmann
    1987), whether or not it contains 0; no worse: its lower bound is above -margin. Without a
    margin neither is asked.
    """
    low, high = difference.bounds(1 - 2 * LEVEL)
    if margin is not None and -margin < low and high < margin:
        return "equivalent"
    if difference.low > 0 and difference.p < LEVEL:
        return "better"
    if difference.high < 0 and difference.p < LEVEL:
        return "worse"
    if margin is not None and low > -margin:
        return "no worse"
    return "too little to tell"


def replicates_needed(difference: Interval) -> int | None:
    """How many paired replicates a t-test at 5 % needs to see a difference as large as this one in
    80 % of cases; None where no number of them would do, or it is more than MOST_REPLICATES."""
    if not difference.deviation or difference.estimate == 0 or samples_are_too_few(difference):
        return None
    effect = abs(difference.estimate) / difference.deviation
    return next(
        (count for count in range(2, MOST_REPLICATES + 1) if _power(effect, count) >= POWER), None
    )


def samples_are_too_few(difference: Interval) -> bool:
    """Whether the test samples alone leave more open than the difference is, so that no number of
    replicates would do."""
    known = stats.norm.ppf(1 - LEVEL / 2) * difference.error_of_samples
    return bool(abs(difference.estimate) < known)


def _power(effect: float, count: int) -> float:
    """Of a paired t-test from both sides, as far as the side of the effect goes."""
    critical = stats.t.ppf(1 - LEVEL / 2, count - 1)
    power = stats.nct.sf(critical, count - 1, effect * math.sqrt(count))
    return 1.0 if math.isnan(power) else float(power)  # SciPy has none where it is all but certain


def probability_of_improvement(scores: Floats, other: Floats) -> float:
    """That a run of one method is better than a run of another on a dataset drawn at random
    (rliable, arXiv 2108.13264). scores: (R, N), other: (S, N), of the same N datasets; those that
    are equal to DIGITS places count half."""
    difference = np.round(scores[:, None] - other[None], DIGITS)
    above, equal = (difference > 0).mean(axis=(0, 1)), (difference == 0).mean(axis=(0, 1))
    return float((above + equal / 2).mean())
