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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fomo_dagster.statistics.answers import Answers, Floats

LEVEL = 0.95
DRAWS = 1000
_AT_ONCE = 2**22  # weights that are held at once


@dataclass(frozen=True)
class Interval:
    """estimate, low, high: in percent or points. replicates: how many it comes from; with one, only
    the samples vary. deviation: of the replicates; None of one. error: the standard error, of
    `freedom` degrees. above_zero: share of the draws above 0."""

    estimate: float
    low: float
    high: float
    replicates: int
    deviation: float | None
    error: float
    freedom: float
    above_zero: float

    @property
    def p(self) -> float:
        """Of the hypothesis that it is 0, by Student's t, from both sides."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.estimate) / self.error, self.freedom))

    def bounds(self, level: float) -> tuple[float, float]:
        """The symmetric interval at another level."""
        width = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
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
    variance, freedom = _variance(metric, methods, signs, scores, by_replicate)
    differences = sum(sign * metric(s) for sign, s in zip(signs, drawn_scores, strict=True))
    assert isinstance(differences, np.ndarray)
    drawn = (times * differences).sum(axis=1) / replicates
    error = math.sqrt(variance)
    spread = float(drawn.std())
    low, high = np.quantile(drawn - drawn.mean(), [(1 - level) / 2, (1 + level) / 2])
    plain = float(stats.norm.ppf((1 + level) / 2))
    wider = float(stats.t.ppf((1 + level) / 2, freedom)) / plain * error / spread if spread else 0
    return Interval(
        estimate, estimate + wider * float(low), estimate + wider * float(high), replicates,
        float(by_replicate.std(ddof=1)) if replicates > 1 else None, error, freedom,
        float((drawn > 0).mean()),
    )  # fmt: skip


def _variance(
    metric: Metric,
    methods: Sequence[Method],
    signs: Sequence[float],
    scores: Sequence[Mapping[str, Floats]],
    by_replicate: Floats,
) -> tuple[float, float]:
    """The variance of the estimate and its degrees of freedom (Satterthwaite 1946)."""
    replicates = len(by_replicate)
    of_samples = of_rest = freedom_of_samples = 0.0
    for name, answers in methods[0].items():
        added = sum(
            sign * _slope(metric, s, name)[:, None] * m[name].influence
            for sign, m, s in zip(signs, methods, scores, strict=True)
        )
        assert isinstance(added, np.ndarray)
        means = added.mean(axis=0)
        count = answers.count
        if count > 1:
            of_samples += float(means.var(ddof=1)) / count
            freedom_of_samples += count - 1
        if replicates > 1 and count > 1:
            rest = added - means - added.mean(axis=1, keepdims=True) + means.mean()
            mean_square = float((rest**2).sum()) / ((replicates - 1) * (count - 1))
            of_rest += mean_square / (replicates * count)
    if replicates == 1:
        return of_samples, max(1.0, freedom_of_samples)
    of_replicates = float(by_replicate.var(ddof=1)) / replicates
    # Both contain what is of neither alone; it counts once.
    samples_alone = max(0.0, of_samples - of_rest)
    total = of_replicates + samples_alone
    squares = of_replicates**2 / (replicates - 1)
    squares += samples_alone**2 / max(1.0, freedom_of_samples)
    return total, total**2 / squares if squares else float(replicates - 1)


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
    for number, (name, answers) in enumerate(methods[0].items()):
        random = np.random.default_rng([seed, number])
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
    return scores, _drawn(np.random.default_rng([seed, len(methods[0])]), replicates, draws)


def _drawn(random: np.random.Generator, count: int, size: int) -> Floats:
    """(size, count), how often each of `count` is drawn in `count` draws with replacement."""
    return random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
