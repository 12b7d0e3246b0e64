"""How to divide compute between model size and samples, without a law of the error.

Approaches 1 and 2 of Hoffmann et al., *Training compute-optimal large language models* (arXiv
2203.15556): the size that has the least error at each budget, and power laws of that size and its
samples. Approach 3 is `compute_optimal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.extrapolation import DRAWS, Range, ranges
from fomo_dagster.units import counted

LEAST_SIZES = 3
LEAST_BUDGETS = 2
SAME_BUDGET = 1.05  # times the FLOPs of its first point
_BUDGETS = 500  # of an envelope, evenly spaced in their logarithm
_DRAWN, _LEVEL = 0.8, 0.8  # as the paper: of the points in a draw, and of an interval


@dataclass(frozen=True)
class Division:
    """Budgets (m,) in FLOPs, with the size and the samples that have the least error at each."""

    budgets: Floats
    sizes: Floats
    samples: Floats

    @property
    def exponents(self) -> dict[str, float]:
        """a and b of N_opt ∝ C^a and D_opt ∝ C^b."""
        return {"a": float(self._line(self.sizes)[0]), "b": float(self._line(self.samples)[0])}

    def optimum(self, flops: Floats) -> tuple[Floats, Floats]:
        """N_opt and D_opt at each C, by these power laws."""
        size, samples = (
            np.exp(np.polyval(self._line(of), np.log(flops))) for of in (self.sizes, self.samples)
        )
        return np.asarray(size), np.asarray(samples)

    def _line(self, values: Floats) -> Floats:
        return np.asarray(np.polyfit(np.log(self.budgets), np.log(values), 1))


Approach = Callable[[Floats, Floats, Floats, Floats], Division]
"""N, D, C and L of points (n,) → how to divide compute."""


def envelope(size: Floats, samples: Floats, flops: Floats, errors: Floats) -> Division:
    """Approach 1: the least error at each budget of the curves of all sizes, which are straight
    lines between their points, of logarithms.

    Budgets are those at which two sizes or more were measured. Raises `InputError` where fewer than
    three sizes have two points, or are the best anywhere.
    """
    _check(size, samples, flops, errors)
    curves = [
        (one, *_curve(flops[size == one], samples[size == one], errors[size == one]))
        for one in np.unique(size)
    ]
    curves = [curve for curve in curves if len(curve[1]) > 1]
    if len(curves) < LEAST_SIZES:
        raise InputError(
            f"an envelope takes {LEAST_SIZES} model sizes or more that were trained with several "
            f"numbers of samples, not {len(curves)}: measure more"
        )
    starts, ends = (sorted(curve[1][place] for curve in curves) for place in (0, -1))
    budgets = np.linspace(starts[1], ends[-2], _BUDGETS)
    of_curves = np.stack([_at(budgets, x, y) for _, x, _, y in curves])
    together = np.isfinite(of_curves).sum(axis=0) > 1
    best = np.where(np.isfinite(of_curves), of_curves, np.inf)[:, together].argmin(axis=0)
    if (there := len(np.unique(best))) < LEAST_SIZES:
        raise InputError(
            f"of {len(curves)} model sizes, {there} ever have the least error at their budget, "
            f"and {LEAST_SIZES} or more are needed: measure larger budgets, or sizes "
            "further apart"
        )
    at = budgets[together]
    taken = np.stack([_at(at, x, d) for _, x, d, _ in curves])
    sizes = np.array([curve[0] for curve in curves])
    return Division(np.exp(at), sizes[best], np.exp(taken[best, np.arange(len(at))]))


def isoflop(size: Floats, samples: Floats, flops: Floats, errors: Floats) -> Division:
    """Approach 2: at each budget the lowest place of a parabola through the errors over ln N.

    Points whose FLOPs differ by a twentieth or less, all of them, are of one budget. Raises
    `InputError` where fewer than two budgets have three sizes and a lowest place between these.
    """
    _check(size, samples, flops, errors)
    found: list[tuple[float, float, float]] = []
    several = 0
    for own in _budgets(flops):
        log_size = np.log(size[own])
        if len(np.unique(log_size)) < LEAST_SIZES:
            continue
        several += 1
        middle = log_size.mean()
        square, slope, _ = np.polyfit(log_size - middle, errors[own], 2)
        lowest = middle - slope / (2 * square) if square > 0 else np.inf
        if log_size.min() <= lowest <= log_size.max():
            budget = float(np.exp(np.log(flops[own]).mean()))
            each = float(np.median(flops[own] / (size[own] * samples[own])))
            found.append((budget, float(np.exp(lowest)), budget / each / float(np.exp(lowest))))
    if len(found) < LEAST_BUDGETS:
        raise InputError(
            f"{LEAST_BUDGETS} budgets or more are needed with {LEAST_SIZES} model sizes each, the "
            f"best of which is neither the smallest nor the largest: of "
            f"{counted(several, 'budget')} with as many sizes, {len(found)} do. Choose samples for "
            "each size so that FLOPs are the same, or take another approach"
        )
    budgets, sizes, taken = np.array(found).T
    return Division(budgets, sizes, taken)


def exponent_ranges(
    approach: Approach, points: tuple[Floats, Floats, Floats, Floats], *, draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Range] | None:  # fmt: skip
    """The intervals of a and b, as the paper has them: the 10th and 90th percentile of fits to four
    fifths of the points. None where fewer than half of these divide any compute."""
    random, count = np.random.default_rng(seed), len(points[0])
    found = []
    for _ in range(draws):
        chosen = random.permutation(count)[: max(1, round(_DRAWN * count))]
        try:
            found.append(approach(*(column[chosen] for column in points)).exponents)
        except InputError:
            continue
    if len(found) < draws / 2:
        return None
    values = [[one["a"], one["b"]] for one in found]
    return dict(zip(("a", "b"), ranges(values, _LEVEL), strict=True))


def _curve(flops: Floats, samples: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Logarithms of C, of D and of L by C; points of one C are one, with their means."""
    log_flops, place = np.unique(np.log(flops), return_inverse=True)
    counts = np.bincount(place)
    means = (np.bincount(place, np.log(of)) / counts for of in (samples, errors))
    log_samples, log_errors = means
    return log_flops, log_samples, log_errors


def _at(x: Floats, known: Floats, values: Floats) -> Floats:
    """The values at x; NaN outside of what is known."""
    return np.asarray(np.interp(x, known, values, left=np.nan, right=np.nan))


def _budgets(flops: Floats) -> Iterator[npt.NDArray[np.intp]]:
    """The places of the points of each budget, from the least: what is above its first point's
    FLOPs by more than a twentieth is of the next."""
    order = np.argsort(flops, kind="stable")
    in_order = flops[order]
    start = 0
    while start < len(order):
        end = int(np.searchsorted(in_order, in_order[start] * SAME_BUDGET, side="right"))
        yield order[start:end]
        start = end


def _check(*columns: Floats) -> None:
    for name, values in zip(("model size", "samples", "FLOPs", "error"), columns, strict=True):
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if len(wrong):
            raise InputError(
                f"compute is divided by positive numbers, and the {name} of "
                f"{counted(len(wrong), 'point')} is {wrong[0]:g}: leave them out"
            )
