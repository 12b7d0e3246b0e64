"""Which law to trust beyond the points, and how far.

The law is that of `scaling_laws` which predicts best the largest points, which it was not fitted to
(arXiv 2209.06640, section 3). Its intervals are of a parametric bootstrap of ln y. Since few points
say little of how much they scatter, each draw has a scatter of its own, that which Student's t
comes from: the intervals of M1 are those of linear regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.intervals import LEVEL
from fomo_dagster.statistics.scaling_laws import LAWS, Fit, Law, check_points, fit, refit
from fomo_dagster.units import counted

DRAWS = 400
_ALIKE = 1.01
_MOST = 50.0  # of a logarithm, so that no draw of few degrees overflows
Range = tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """A law that was tried. fit: of all points but the largest; loss: the root of the mean square
    of ln(predicted / measured) at the largest; both None where there are too few points."""

    law: Law
    fit: Fit | None
    loss: float | None


@dataclass(frozen=True)
class Chosen:
    """The law that extrapolates best. held_out: (n,), whether a point was held out; before: the law
    fitted without these; fit: with them."""

    trials: tuple[Trial, ...]
    held_out: npt.NDArray[np.bool_]
    before: Fit
    fit: Fit


def choose(
    x: Floats, y: Floats, hold_out: int = 1, laws: Sequence[Law] = tuple(LAWS.values())
) -> Chosen:
    """The law with the least loss at the `hold_out` largest values of x, which it is not fitted to;
    of those within a hundredth of it the first, since a parameter that finds nothing to do leaves
    the law as it would be without.

    A law that takes more points is left out where there are several, and `InputError` where it is
    the only one; likewise as `fit`, and where nothing would be left to fit.
    """
    check_points(x, y)
    values = np.unique(x)
    least = min(len(law.parameters) for law in laws)
    if len(values) - hold_out < least:
        raise InputError(
            f"{counted(len(values), 'value')} of x, of which the largest {hold_out} would be held "
            f"out: {counted(least, 'value')} or more must be left, as many as "
            f"{laws[0].name if len(laws) == 1 else 'a law'} has parameters. Hold out fewer, or "
            "measure more"
        )
    held_out = x >= values[len(values) - hold_out]
    trials = tuple(_tried(law, x, y, held_out) for law in laws)
    tried = [(one.law, one.fit, one.loss) for one in trials if one.fit and one.loss is not None]
    nearly = _ALIKE * min(loss for *_, loss in tried)
    law, before = next((law, found) for law, found, loss in tried if loss <= nearly)
    return Chosen(trials, held_out, before, fit(law, x, y))


def _tried(law: Law, x: Floats, y: Floats, held_out: npt.NDArray[np.bool_]) -> Trial:
    if len(np.unique(x[~held_out])) < len(law.parameters):
        return Trial(law, None, None)
    found = fit(law, x[~held_out], y[~held_out])
    errors = np.log(found.at(x[held_out]) / y[held_out])
    return Trial(law, found, float(np.sqrt(np.mean(errors**2))))


@dataclass(frozen=True)
class Uncertainty:
    """Of a fit. parameters: name → interval; values: of a new measurement at each x asked for."""

    parameters: Mapping[str, Range]
    values: tuple[Range, ...]


def uncertainty(
    found: Fit, x: Floats, at: Floats, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Uncertainty | None:
    """The intervals of a fit to points at x (n,), and of what would be measured at `at` (m,). None
    where as many parameters as points leave nothing to tell them from."""
    if not found.freedom:
        return None
    value, names = found.at(x), list(found.parameters)
    parameters, values = [], []
    for noise in scatter(found.deviation, found.freedom, len(x) + 1, draws, seed):
        again = refit(found, x, value * noise[:-1])
        parameters.append([again.parameters[name] for name in names])
        values.append(again.at(at) * noise[-1])
    of_parameters = dict(zip(names, ranges(parameters, level), strict=True))
    return Uncertainty(of_parameters, tuple(ranges(values, level)))


def scatter(deviation: float, freedom: int, count: int, draws: int, seed: int) -> Iterator[Floats]:
    """Factors (count,) by which points scatter around a law, for each draw.

    deviation: of ln y, estimated with `freedom` degrees. Normal, with a variance from what these
    degrees leave open: freedom · deviation² / χ².
    """
    random = np.random.default_rng(seed)
    for _ in range(draws):
        scale = deviation * np.sqrt(freedom / random.chisquare(freedom))
        yield np.exp(np.clip(scale * random.standard_normal(count), -_MOST, _MOST))


def ranges(draws: Sequence[Sequence[float] | Floats], level: float) -> list[Range]:
    """The percentile interval of each column of draws (B, m)."""
    low, high = np.quantile(np.array(draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
