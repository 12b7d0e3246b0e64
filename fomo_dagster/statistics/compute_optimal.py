"""How an error falls with model size and samples together, and how to divide compute between them.

Approach 3 of Hoffmann et al., *Training compute-optimal large language models* (arXiv 2203.15556):
L(N, D) = E + A / N^α + B / D^β, by a Huber loss of ln L and L-BFGS from a grid of starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.extrapolation import DRAWS, Range, ranges, scatter
from fomo_dagster.statistics.intervals import LEVEL
from fomo_dagster.units import counted

DELTA = 1e-3
PARAMETERS = ("E", "A", "B", "α", "β")
LEAST_VALUES = 3  # of N, and of D: two say nothing of what both leave over
_NOTHING = 1e-6
# θ: the logarithms of the parts of L that E, A and B are at the geometric means of N and D, α, β.
_PARTS, _EXPONENTS = (-4.0, -2.0, -1.0, -0.3), (0.1, 0.3, 0.7, 1.5)
_STARTS = tuple(
    np.array(start) for start in itertools.product(*[_PARTS] * 3, _EXPONENTS, _EXPONENTS)
)
_TRIED = 5  # of the starts: those with the least loss
EXPONENTS = (0.01, 4.0)
"""The least and the largest α and β that are looked for."""
_BOUNDS = (*[(-30.0, 3.0)] * 3, EXPONENTS, EXPONENTS)


@dataclass(frozen=True)
class JointLaw:
    """L(N, D) = E + A / N^α + B / D^β. freedom, deviation: as of `scaling_laws.Fit`; theta: what
    was fitted, to points in `_Points`."""

    parameters: Mapping[str, float]
    freedom: int
    deviation: float
    theta: Floats

    @property
    def exponents(self) -> dict[str, float]:
        """a and b of N_opt ∝ C^a and D_opt ∝ C^b."""
        alpha, beta = self.parameters["α"], self.parameters["β"]
        return {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}

    def at(self, size: Floats, samples: Floats) -> Floats:
        """L at each pair of N and D."""
        least, of_size, of_samples, alpha, beta = self.parameters.values()
        return np.asarray(least + of_size * size**-alpha + of_samples * samples**-beta)

    def optimum(self, flops: Floats, flops_each: float = 6.0) -> tuple[Floats, Floats]:
        """N_opt and D_opt, which have the least L of all with k·N·D = C FLOPs.

        N_opt = G (C/k)^a and D_opt = (C/k)^b / G, with G = (α A / (β B))^(1/(α+β)). flops_each: k.
        """
        _, of_size, of_samples, alpha, beta = self.parameters.values()
        ratio = (alpha * of_size / (beta * of_samples)) ** (1 / (alpha + beta))
        budget, exponents = flops / flops_each, self.exponents
        return (
            np.asarray(ratio * budget ** exponents["a"]),
            np.asarray(budget ** exponents["b"] / ratio),
        )


@dataclass(frozen=True)
class JointUncertainty:
    """Intervals. parameters: of `PARAMETERS`, a and b; sizes, samples, values: at each budget, of
    N_opt, D_opt, and of a new measurement of L there."""

    parameters: Mapping[str, Range]
    sizes: tuple[Range, ...]
    samples: tuple[Range, ...]
    values: tuple[Range, ...]


def fit_joint(size: Floats, samples: Floats, errors: Floats) -> JointLaw:
    """The law of points (n,): N, D and L.

    Raises `InputError` for fewer points than parameters, fewer than three values of N or D, numbers
    that are not positive, and errors that do not fall with both.
    """
    _check(size, samples, errors)
    points = _Points.of(size, samples, errors)
    starts = sorted(_STARTS, key=lambda start: points.loss(start)[0])[:_TRIED]
    theta = min(map(points.descend, starts), key=lambda theta: points.loss(theta)[0])
    law = points.law(theta)
    for name, values, part, exponent in (
        ("model size", points.log_size, theta[1], theta[3]),
        ("samples", points.log_samples, theta[2], theta[4]),
    ):
        if np.ptp(np.exp(part - exponent * values)) < _NOTHING:
            raise InputError(
                f"the error does not fall with {name}: such points tell no division of compute. "
                "Choose another metric, or measure more points"
            )
    return law


def joint_uncertainty(
    law: JointLaw, size: Floats, samples: Floats, flops: Floats, flops_each: float = 6.0, *,
    draws: int = DRAWS, seed: int = 0, level: float = LEVEL,
) -> JointUncertainty | None:  # fmt: skip
    """The intervals of a fit to points at N and D (n,), and at budgets (m,) in FLOPs, by the
    bootstrap of `extrapolation`. None where as many parameters as points leave nothing to tell them
    from."""
    if not law.freedom:
        return None
    value = law.at(size, samples)
    parameters, optima = [], []
    for noise in scatter(law.deviation, law.freedom, len(size) + 1, draws, seed):
        points = _Points.of(size, samples, value * noise[:-1])
        again = points.law(points.descend(law.theta))
        parameters.append([*again.parameters.values(), *again.exponents.values()])
        best = again.optimum(flops, flops_each)
        optima.append((*best, again.at(*best) * noise[-1]))
    sizes, counts, values = (tuple(ranges(of, level)) for of in zip(*optima, strict=True))
    names = (*PARAMETERS, "a", "b")
    of_parameters = dict(zip(names, ranges(parameters, level), strict=True))
    return JointUncertainty(of_parameters, sizes, counts, values)


@dataclass(frozen=True)
class _Points:
    """Logarithms (n,) of N, D and L less their means, which are in `means`."""

    log_size: Floats
    log_samples: Floats
    log_errors: Floats
    means: tuple[float, float, float]

    @classmethod
    def of(cls, size: Floats, samples: Floats, errors: Floats) -> _Points:
        log_size, log_samples, log_errors = (np.log(v) for v in (size, samples, errors))
        means = (float(log_size.mean()), float(log_samples.mean()), float(log_errors.mean()))
        return cls(log_size - means[0], log_samples - means[1], log_errors - means[2], means)

    def descend(self, start: Floats) -> Floats:
        found = optimize.minimize(
            self.loss, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS,
            options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
        )  # fmt: skip
        return np.asarray(found.x)

    def loss(self, theta: Floats) -> tuple[float, Floats]:
        """The sum of Huber's losses of ln L, over DELTA², and its gradient."""
        parts = self._parts(theta)
        scaled = (special.logsumexp(parts, axis=0) - self.log_errors) / DELTA
        shares = special.softmax(parts, axis=0)
        weights = np.clip(scaled, -1, 1) / DELTA
        of_parts = shares @ weights
        of_exponents = (
            -(shares[1] * self.log_size) @ weights,
            -(shares[2] * self.log_samples) @ weights,
        )
        return float(special.huber(1.0, scaled).sum()), np.array([*of_parts, *of_exponents])

    def _parts(self, theta: Floats) -> Floats:
        """(3, n), the logarithms of E, A / N^α and B / D^β."""
        return np.stack(
            [
                np.full_like(self.log_size, theta[0]),
                theta[1] - theta[3] * self.log_size,
                theta[2] - theta[4] * self.log_samples,
            ]
        )

    def law(self, theta: Floats) -> JointLaw:
        residuals = special.logsumexp(self._parts(theta), axis=0) - self.log_errors
        freedom = len(residuals) - len(PARAMETERS)
        deviation = float(np.sqrt((residuals**2).sum() / freedom)) if freedom else 0.0
        of_size, of_samples, of_errors = self.means
        parameters = {
            "E": np.exp(theta[0] + of_errors),
            "A": np.exp(theta[1] + of_errors + theta[3] * of_size),
            "B": np.exp(theta[2] + of_errors + theta[4] * of_samples),
            "α": theta[3],
            "β": theta[4],
        }
        parameters = {name: float(value) for name, value in parameters.items()}
        return JointLaw(parameters, freedom, deviation, theta)


def _check(size: Floats, samples: Floats, errors: Floats) -> None:
    columns = {"model size": size, "samples": samples, "error": errors}
    for name, values in columns.items():
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if len(wrong):
            raise InputError(
                f"a law needs positive numbers, and the {name} of {counted(len(wrong), 'point')} "
                f"is {wrong[0]:g}: leave them out, or choose another metric"
            )
    if len(errors) < len(PARAMETERS):
        raise InputError(
            f"L(N, D) has {len(PARAMETERS)} parameters, and needs as many points or more, not "
            f"{len(errors)}: measure more combinations of model size and samples"
        )
    for name, values in list(columns.items())[:2]:
        if (there := len(np.unique(values))) < LEAST_VALUES:
            raise InputError(
                f"L(N, D) needs {LEAST_VALUES} values of {name} or more, not {there}: sweep over "
                "both, or fit a law of the other alone"
            )
