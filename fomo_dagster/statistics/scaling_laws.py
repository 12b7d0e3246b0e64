"""Laws of how an error falls with samples, FLOPs or parameters.

The four formulas of Alabdulmohsin, Neyshabur and Zhai, *Revisiting neural scaling laws in language
and vision* (arXiv 2209.06640), from its published code. All are fitted to the logarithms of the
errors by least squares, where that code minimises residuals of its own.
`fomo_dagster.statistics.extrapolation` chooses among them and says how far they can be trusted.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import optimize, special

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.units import counted

_STEEPEST = -8.0  # the least exponent that is looked for
_TOLERANCE, _TOLERANCE_NEAR = 1e-10, 1e-6
_EVALUATIONS, _MOST_EVALUATIONS = 30, 200  # from each start, and from the best place found
_STEP = 1e-8


class Law(ABC):
    """A law y(x) with c ≤ 0, in x over its geometric mean and y over its maximum, so that its
    numbers θ = (ln β, c, …) are about 1."""

    name: ClassVar[str]
    formula: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    low: ClassVar[tuple[float, ...]] = ()
    high: ClassVar[tuple[float, ...]] = ()
    """Bounds of what follows ln β and c."""

    @abstractmethod
    def predict(self, theta: Floats, log_x: Floats) -> Floats:
        """ln y."""

    def slopes(self, theta: Floats, log_x: Floats) -> Floats:
        """(n, parameters), the derivatives of ln y by θ."""
        return np.asarray(optimize.approx_fprime(theta, lambda at: self.predict(at, log_x), _STEP))

    @abstractmethod
    def linear(self, rest: tuple[float, ...], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """What θ after ln β and c makes linear in these: the abscissae and ordinates of the line
        ln β + c·abscissa."""

    @abstractmethod
    def unscaled(self, theta: Floats, x: float, y: float) -> tuple[float, ...]:
        """`parameters` in the units of the points, which were divided by x and y."""

    def rests(self, y: Floats) -> Iterator[tuple[float, ...]]:
        """Values of what follows ln β and c to begin with."""
        yield ()

    def starts(self, x: Floats, y: Floats) -> Iterator[Floats]:
        """Values of θ to begin with."""
        for rest in self.rests(y):
            abscissae, ordinates = self.linear(rest, x, y)
            slope, intercept = np.polyfit(abscissae, ordinates, 1)
            yield np.array([intercept, slope, *rest])

    @property
    def is_line(self) -> bool:
        """Whether ln y is linear in ln x."""
        return not self.low

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """Of θ."""
        return (
            np.array([-np.inf, _STEEPEST, *self.low]),
            np.array([np.inf, 0.0, *self.high]),
        )


class M1(Law):
    """y = β x^c."""

    name = "M1"
    formula = "y = β x^c"
    parameters = ("β", "c")

    def predict(self, theta: Floats, log_x: Floats) -> Floats:
        return np.asarray(theta[0] + theta[1] * log_x)

    def linear(self, rest: tuple[float, ...], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return np.log(x), np.log(y)

    def unscaled(self, theta: Floats, x: float, y: float) -> tuple[float, ...]:
        return y * np.exp(theta[0]) * x ** -theta[1], theta[1]


class M2(Law):
    """y = β x^c + ε∞."""

    name = "M2"
    formula = "y = β x^c + ε∞"
    parameters = ("β", "c", "ε∞")
    low, high = (0.0,), (1.0,)

    def predict(self, theta: Floats, log_x: Floats) -> Floats:
        return np.asarray(np.log(np.exp(theta[0] + theta[1] * log_x) + theta[2]))

    def linear(self, rest: tuple[float, ...], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return np.log(x), np.log(y - rest[0])

    def rests(self, y: Floats) -> Iterator[tuple[float, ...]]:
        for share in (0.0, 0.5, 0.9):
            yield (share * y.min(),)

    def unscaled(self, theta: Floats, x: float, y: float) -> tuple[float, ...]:
        return y * np.exp(theta[0]) * x ** -theta[1], theta[1], y * theta[2]


class M3(Law):
    """y = β (1/x + γ)^-c, which falls to β γ^-c."""

    name = "M3"
    formula = "y = β (1/x + γ)^-c"
    parameters = ("β", "c", "γ")
    low, high = (0.0,), (np.inf,)

    def predict(self, theta: Floats, log_x: Floats) -> Floats:
        return np.asarray(theta[0] - theta[1] * np.log(np.exp(-log_x) + theta[2]))

    def linear(self, rest: tuple[float, ...], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return -np.log(1 / x + rest[0]), np.log(y)

    def rests(self, y: Floats) -> Iterator[tuple[float, ...]]:
        yield from ((0.0,), (0.1,), (1.0,))

    def unscaled(self, theta: Floats, x: float, y: float) -> tuple[float, ...]:
        return y * np.exp(theta[0]) * x ** -theta[1], theta[1], theta[2] / x


class M4(Law):
    """(y - ε∞) / (ε0 - y)^α = β x^c: from ε0, the error of guessing, down to ε∞, with a bend of
    its own at both ends. θ has ε0 - ε∞ in the place of ε0."""

    name = "M4"
    formula = "(y - ε∞) / (ε0 - y)^α = β x^c"
    parameters = ("β", "c", "ε∞", "α", "ε0")
    low, high = (0.0, 0.1, 0.01), (1.0, 5.0, 10.0)

    def predict(self, theta: Floats, log_x: Floats) -> Floats:
        _, _, infinite, _, room = theta
        return np.asarray(np.log(infinite + room * special.expit(self._place(theta, log_x))))

    def _place(self, theta: Floats, log_x: Floats) -> Floats:
        """t of y = ε∞ + (ε0 - ε∞)·σ(t). There is no closed form; the logarithm of the left side
        rises with t, as softplus(t)·α - softplus(-t)."""
        log_beta, c, _, alpha, room = theta
        wanted = log_beta + c * log_x + (alpha - 1) * np.log(room)
        return np.asarray(
            optimize.newton(
                lambda t: alpha * np.logaddexp(0, t) - np.logaddexp(0, -t) - wanted,
                np.where(wanted > 0, wanted / alpha, wanted),
                fprime=lambda t: alpha * special.expit(t) + special.expit(-t),
                maxiter=200,
            )
        )

    def slopes(self, theta: Floats, log_x: Floats) -> Floats:
        """By implicit differentiation of what `_place` solves."""
        _, _, infinite, alpha, room = theta
        place = self._place(theta, log_x)
        share = special.expit(place)
        error = infinite + room * share
        moved = room * share * (1 - share) / (alpha * share + 1 - share) / error
        return np.stack(
            [
                moved,
                moved * log_x,
                1 / error,
                moved * (np.log(room) - np.logaddexp(0, place)),
                moved * (alpha - 1) / room + share / error,
            ],
            axis=1,
        )

    def linear(self, rest: tuple[float, ...], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        infinite, alpha, room = rest
        return np.log(x), np.log(y - infinite) - alpha * np.log(infinite + room - y)

    def rests(self, y: Floats) -> Iterator[tuple[float, ...]]:
        for share, alpha, most in itertools.product((0.0, 0.5, 0.9), (0.5, 1.0, 2.0), (1.05, 2.0)):
            yield share * y.min(), alpha, most - share * y.min()

    def unscaled(self, theta: Floats, x: float, y: float) -> tuple[float, ...]:
        log_beta, c, infinite, alpha, room = theta
        beta = np.exp(log_beta) * x**-c * y ** (1 - alpha)
        return beta, c, y * infinite, alpha, y * (infinite + room)


LAWS: Mapping[str, Law] = {law.name: law for law in (M1(), M2(), M3(), M4())}


@dataclass(frozen=True)
class Fit:
    """A law fitted to n points. theta, x, y: as of `Law`; freedom: n less the number of
    parameters; deviation: of ln y around the law, which is 0 where no freedom is left."""

    law: Law
    theta: Floats
    x: float
    y: float
    freedom: int
    deviation: float

    @property
    def parameters(self) -> dict[str, float]:
        """By name, in the units of the points."""
        values = self.law.unscaled(self.theta, self.x, self.y)
        return dict(zip(self.law.parameters, map(float, values), strict=True))

    def at(self, x: Floats) -> Floats:
        """The law's value at each x."""
        return np.asarray(self.y * np.exp(self.law.predict(self.theta, np.log(x / self.x))))


def fit(law: Law, x: Floats, y: Floats) -> Fit:
    """The law that is nearest to points (n,) in the squares of ln y.

    Raises `InputError` for fewer values of x than the law has parameters, and as `check_points`.
    """
    check_points(x, y)
    there, needed = len(np.unique(x)), len(law.parameters)
    if there < needed:
        raise InputError(
            f"{law.name} ({law.formula}) has {counted(needed, 'parameter')}, and needs points at "
            f"as many values of x or more, not at {there}: measure more of them, or choose a law "
            "with fewer"
        )
    unit_x, unit_y = float(np.exp(np.log(x).mean())), float(y.max())
    theta, loss = _least_squares(law, x / unit_x, y / unit_y, law.starts(x / unit_x, y / unit_y))
    freedom = len(x) - needed
    deviation = float(np.sqrt(loss / freedom)) if freedom else 0.0
    return Fit(law, theta, unit_x, unit_y, freedom, deviation)


def refit(found: Fit, x: Floats, y: Floats) -> Fit:
    """The same law for other errors at the points of a fit, which are near it."""
    theta, _ = _least_squares(
        found.law, x / found.x, y / found.y, [found.theta], tolerance=_TOLERANCE_NEAR
    )
    return Fit(found.law, theta, found.x, found.y, found.freedom, found.deviation)


def check_points(x: Floats, y: Floats) -> None:
    """Raises `InputError` for points through which no law of decay goes: there are none, one is not
    positive, all have the same x, or errors grow."""
    for name, values in (("x", x), ("error", y)):
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if len(wrong):
            raise InputError(
                f"a law needs positive numbers, and the {name} of {counted(len(wrong), 'point')} "
                f"is {wrong[0]:g}: leave them out, or choose another metric"
            )
    if len(np.unique(x)) < 2:
        at = f"all at {x[0]:g}" if len(x) else "of which none has all it takes"
        raise InputError(
            f"a law needs points at two values of x or more, not {counted(len(x), 'point')}, {at}"
        )
    if np.polyfit(np.log(x), np.log(y), 1)[0] >= 0:
        low, high = y[x == x.min()].mean(), y[x == x.max()].mean()
        raise InputError(
            f"the error grows, from {low:.4g} at {x.min():g} to {high:.4g} at {x.max():g}: these "
            "laws are of errors that fall. Choose another metric, or what it falls with"
        )


def _least_squares(
    law: Law, x: Floats, y: Floats, starts: Iterable[Floats], *, tolerance: float = _TOLERANCE
) -> tuple[Floats, float]:
    """θ with the least sum of squares of ln y from any start, and that sum."""
    log_x, log_y = np.log(x), np.log(y)
    low, high = law.bounds
    if law.is_line:
        slope, intercept = np.polyfit(log_x, log_y, 1)
        if low[1] <= slope <= high[1]:
            theta = np.array([intercept, slope])
            return theta, float(((law.predict(theta, log_x) - log_y) ** 2).sum())

    def descend(start: Floats, evaluations: int) -> optimize.OptimizeResult:
        return optimize.least_squares(
            lambda theta: law.predict(theta, log_x) - log_y,
            np.clip(start, low, high), jac=lambda theta: law.slopes(theta, log_x),
            bounds=(low, high), x_scale="jac", max_nfev=evaluations,
            ftol=tolerance, xtol=tolerance, gtol=tolerance,
        )  # fmt: skip

    found = min((descend(start, _EVALUATIONS) for start in starts), key=lambda one: one.cost)
    if not found.success:
        found = descend(found.x, _MOST_EVALUATIONS)
    theta = found.x  # which is inside of bounds, be it by nothing
    for bound in (low, high):
        theta = np.where(np.abs(theta - bound) < _STEP, bound, theta)
    return theta, float(2 * found.cost)
