"""Intervals of scores, and of the differences of two methods, over replicates and test samples.

Replicates (seeds, orders) and samples are crossed: all replicates meet the same test samples. A
draw of the bootstrap takes replicates with replacement and, independently, the clusters of each
dataset; both methods are drawn alike (the pigeonhole bootstrap, Owen 2007, doi 10.1214/07-AOAS122).
The draws give the interval its shape. Their variance is too large where what replicates and samples
share weighs most, and percentiles of few replicates are too narrow (Hesterberg 2015, arXiv
1411.5279). So the width is that of the variances of a two-way layout, by Student's t.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats takes a second to import

from fomo_dagster.statistics.answers import Answers, Floats

LEVEL = 0.95
DRAWS = 1000
_FREEDOM_FOR_SHAPE = 10  # below which few values would decide the shape of the draws
_NOTHING = 1e-9
_AT_ONCE = 2**22  # weights that are held at once


@dataclass(frozen=True)
class Interval:
    """estimate, low, high: in percent or points. replicates: how many it comes from; with one, only
    the samples vary. deviation: of the replicates; None of one. error: the standard error, of
    `freedom` degrees; error_of_samples: what it would be with any number of replicates.
    above_zero: share of the draws above 0."""

    estimate: float
    low: float
    high: float
    replicates: int
    deviation: float | None
    error: float
    error_of_samples: float
    freedom: float
    above_zero: float

    @property
    def p(self) -> float:
        """Of the hypothesis that it is 0, by Student's t, from both sides."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * special.stdtr(self.freedom, -abs(self.estimate) / self.error))

    def bounds(self, level: float) -> tuple[float, float]:
        """The symmetric interval at another level."""
        width = student(self.freedom, level) * self.error
        return self.estimate - width, self.estimate + width


Method = Mapping[str, Answers]
"""Dataset → its answers, of the same replicates."""
Metric = Callable[[Mapping[str, Floats]], Floats]
"""Dataset → scores of any shape, to the metric of that shape."""


def interval(
    metric: Metric, method: Method, other: Method | None = None, *, seed: int = 0,
    draws: int = DRAWS, level: float = LEVEL,
) -> Interval:  # fmt: skip
    """That of `intervals` for one metric."""
    (found,) = intervals([metric], method, other, seed=seed, draws=draws, level=level)
    return found


def intervals(
    metrics: Sequence[Metric], method: Method, other: Method | None = None, *, seed: int = 0,
    draws: int = DRAWS, level: float = LEVEL,
) -> list[Interval]:  # fmt: skip
    """The intervals of metrics; with another method, of `method` less `other`, paired.

    Both have the same replicates, and the same clusters in the same order.
    """
    methods = [method] if other is None else [method, other]
    drawn, times = _draws(methods, seed, draws)
    return [_interval(metric, methods, drawn, times, level) for metric in metrics]


def _interval(
    metric: Metric, methods: Sequence[Method], drawn_scores: Sequence[Mapping[str, Floats]],
    times: Floats, level: float,
) -> Interval:  # fmt: skip
    signs = [1.0, -1.0][: len(methods)]
    scores = [{name: one.scores() for name, one in m.items()} for m in methods]
    by_replicate = sum(sign * metric(s) for sign, s in zip(signs, scores, strict=True))
    assert isinstance(by_replicate, np.ndarray)
    estimate, replicates = float(by_replicate.mean()), len(by_replicate)
    variance, of_samples, freedom = _variance(metric, methods, signs, scores, by_replicate)
    error = math.sqrt(variance)
    width = student(freedom, level) * error
    low, high = -width, width
    differences = sum(sign * metric(s) for sign, s in zip(signs, drawn_scores, strict=True))
    assert isinstance(differences, np.ndarray)
    drawn = (times * differences).sum(axis=1) / replicates
    spread = float(drawn.std())
    if freedom >= _FREEDOM_FOR_SHAPE and spread > 0:
        shape = np.quantile(drawn - drawn.mean(), [(1 - level) / 2, (1 + level) / 2])
        plain = float(special.ndtri((1 + level) / 2)) * spread
        low, high = (width / plain * shape).tolist()
    least = 0.0 if len(methods) == 1 else -100.0
    return Interval(
        estimate, max(least, estimate + low), min(100.0, estimate + high), replicates,
        float(by_replicate.std(ddof=1)) if replicates > 1 else None, error,
        math.sqrt(of_samples), freedom, float((drawn > 0).mean()),
    )  # fmt: skip


def _variance(
    metric: Metric,
    methods: Sequence[Method],
    signs: Sequence[float],
    scores: Sequence[Mapping[str, Floats]],
    by_replicate: Floats,
) -> tuple[float, float, float]:
    """The variance of the estimate, what of it is that of the samples, and its degrees of freedom.

    Those of the samples are Satterthwaite's (1946). His take the share of a part for known: where
    few replicates happen to agree, both the variance and their share come out too small, and 3
    replicates cover 93 % instead of 95. So the parts of replicates and of samples weigh by their
    shares, not by the squares of these, much as in Cochran's test (Cochran and Cox 1957), whose t
    lies between those of the parts likewise.
    """
    replicates = len(by_replicate)
    of_samples, of_rest, freedom_of_rest = 0.0, 0.0, 0
    parts: list[tuple[float, int]] = []  # variances that add up, with their degrees of freedom
    for name, answers in methods[0].items():
        slopes = [_slope(metric, s, name) for s in scores]
        count = answers.count
        added = sum(
            sign * slope[:, None] * m[name].influence
            for sign, m, slope in zip(signs, methods, slopes, strict=True)
        )
        assert isinstance(added, np.ndarray)
        means = added.mean(axis=0)
        own = float(means.var(ddof=1)) / count if count > 1 else 0.0
        if own < _NOTHING:
            gap = sum(sign * s[name].mean() for sign, s in zip(signs, scores, strict=True)) / 100
            own = (100 * float(np.mean(slopes))) ** 2 * least_variance(float(gap), count)
        parts.append((own, max(1, count - 1)))
        if replicates > 1 and count > 1:
            rest = added - means - added.mean(axis=1, keepdims=True) + means.mean()
            mean_square = float((rest**2).sum()) / ((replicates - 1) * (count - 1))
            of_rest += mean_square / (replicates * count)
            freedom_of_rest += (replicates - 1) * (count - 1)
    of_samples = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts)
    freedom_of_samples = of_samples**2 / squares if squares else 1.0
    if replicates == 1:
        return of_samples, of_samples, freedom_of_samples
    of_replicates = float(by_replicate.var(ddof=1)) / replicates
    freedom_of_replicates = replicates - 1
    if of_replicates < _NOTHING:  # replicates that agree by chance, as on few samples, say less
        of_replicates, freedom_of_replicates = of_rest, max(1, freedom_of_rest)
    # Both contain what is of neither alone; it counts once.
    samples_alone = max(0.0, of_samples - of_rest)
    total = of_replicates + samples_alone
    weights = of_replicates / freedom_of_replicates + samples_alone / freedom_of_samples
    freedom = total / weights if weights else float(replicates - 1)
    return total, samples_alone, freedom


def least_variance(gap: float, count: int) -> float:
    """The variance of a difference of shares where all samples say the same, which is not none: as
    if each cell of the table of pairs had half a pair more (Agresti and Min 2005)."""
    won, lost = ((count * max(0.0, part) + 0.5) / (count + 2) for part in (gap, -gap))
    return (won + lost - (won - lost) ** 2) / (count + 2)


def student(freedom: float, level: float = LEVEL) -> float:
    """The quantile of Student's t that a two-sided interval of this level takes."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def _slope(metric: Metric, scores: Mapping[str, Floats], dataset: str) -> Floats:
    """(R,), how the metric follows a dataset's score."""
    step = 1e-3
    up, down = ({**scores, dataset: scores[dataset] + sign * step} for sign in (1, -1))
    return np.asarray((metric(up) - metric(down)) / (2 * step))


def _draws(
    methods: Sequence[Method], seed: int, draws: int
) -> tuple[list[dict[str, Floats]], Floats]:
    """B draws of the bootstrap: of each method, dataset → scores (B, R) of its replicates; and how
    often each replicate counts (B, R)."""
    scores: list[dict[str, Floats]] = [{} for _ in methods]
    for name, answers in methods[0].items():
        # By its name, so that other datasets beside it change nothing.
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        found: list[list[Floats]] = [[] for _ in methods]
        most = max(1, _AT_ONCE // answers.count)
        for start in range(0, draws, most):
            size = min(most, draws - start)
            weights = _drawn(random, answers.count, size)
            for place, method in enumerate(methods):
                found[place].append(method[name].scores(weights))
        for place, blocks in enumerate(found):
            scores[place][name] = np.concatenate(blocks)
    replicates = len(next(iter(methods[0].values())).correct)
    return scores, _drawn(np.random.default_rng(seed), replicates, draws)


def _drawn(random: np.random.Generator, count: int, size: int) -> Floats:
    """(size, count), how often each of `count` is drawn in `count` draws with replacement."""
    return random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
