"""Judges a stage by the gates of its release, from what it and the live release answered to the
same test samples.

An interval is over test samples: both are single models, so nothing else varies. See
`statistics.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import polars as pl

from fomo_dagster.data.near_duplicates import EARLIER, LEAKAGE, WITHIN, Found
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.release import (
    ROLES,
    CalibrationGate,
    CostGate,
    DataGate,
    GalleryGate,
    Gates,
    ProtectedGate,
    ScoreGate,
    SpeedGate,
)
from fomo_dagster.metrics import (
    GEOMETRIC_MEAN,
    KNOWLEDGE_ACCUMULATION,
    ZERO_SHOT_RETENTION,
    StageMetric,
)
from fomo_dagster.releases.costs import IMAGE, TEXT, Compared
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.statistics.comparison import metrics_of
from fomo_dagster.statistics.intervals import Interval, Method, Metric, interval
from fomo_dagster.tables.answers import answers_of

SCORES: Mapping[str, StageMetric] = {
    "knowledge": KNOWLEDGE_ACCUMULATION,
    "retention": ZERO_SHOT_RETENTION,
    "geometric_mean": GEOMETRIC_MEAN,
}
"""Gate → the score that it is about."""
CALIBRATION_ERROR = "expected_calibration_error"


@dataclass(frozen=True)
class Evaluated:
    """What was found of a model. predictions: dataset → rows, as of `read_predictions`; metrics:
    dataset → metric → value."""

    predictions: Mapping[str, pl.DataFrame]
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class GalleryDrift:
    """How far the stage is from what embedded a gallery. metrics: rows as of `drift_of`; None: it
    was never embedded. is_same: whether these very weights embedded it."""

    metrics: pl.DataFrame | None = None
    is_same: bool = False


@dataclass(frozen=True)
class _Estimate:
    """As of `Interval`, where nothing else is known."""

    estimate: float
    low: float
    high: float


def concepts_of(protected: ProtectedGate, there: Mapping[str, Sequence[str]]) -> list[
    tuple[str, str]
]:  # fmt: skip
    """(dataset, concept) of what is protected. there: dataset → its concepts. Raises `InputError`
    for a concept that none has."""
    found = []
    for named in protected.concepts:
        pairs = [
            (dataset, concept)
            for dataset, concepts in there.items()
            for concept in concepts
            if named in (concept, f"{dataset}/{concept}")
        ]
        if not pairs:
            known = {concept for concepts in there.values() for concept in concepts}
            raise InputError(
                f"release.gates.protected names the concept {named!r}, which no evaluation dataset "
                f"has: {nearest(named, known)}"
            )
        found += pairs
    return list(dict.fromkeys(found))


def judge(
    gates: Gates, roles: Mapping[str, str], stage: Evaluated, live: Evaluated | None, number: int,
    brought: Found | None = None, *, left_out: bool = False, costs: Compared | None = None,
    drifts: Mapping[str, GalleryDrift] | None = None,
) -> list[Verdict]:  # fmt: skip
    """A verdict of each gate. roles: dataset → adaptation or held_out; number: that of the live
    release, where there is one; brought: the near duplicates of what the stage brings, unless it
    brings nothing; left_out: it is not trained on these; costs, and drifts by gallery: where a gate
    asks for them."""
    judging = _Judging(roles, stage, live, number)
    verdicts: list[Verdict] = []
    for name, gate in gates.asked.items():
        if live is None and name in gates.need_live:
            verdicts.append(
                Verdict(name, False, "comparison with what is live", "nothing is live yet")
            )
        elif isinstance(gate, ScoreGate):
            verdicts.append(judging.score(name, gate))
        elif isinstance(gate, ProtectedGate):
            verdicts.extend(judging.protected(gate))
        elif isinstance(gate, CalibrationGate):
            verdicts.append(judging.calibration(gate))
        elif isinstance(gate, DataGate):
            verdicts.extend(_of_data(gate, brought, left_out=left_out))
        elif isinstance(gate, CostGate) and costs is not None:
            verdicts.extend(_of_cost(gate, costs, number))
        elif isinstance(gate, SpeedGate) and costs is not None:
            verdicts.extend(_of_speed(gate, costs, number))
        elif isinstance(gate, GalleryGate):
            for gallery, drift in (drifts or {}).items():
                verdicts.extend(_of_gallery(gate, gallery, drift))
    return verdicts


def _of_data(gate: DataGate, brought: Found | None, *, left_out: bool) -> Iterator[Verdict]:
    """What the stage brings, which is nothing at stage 0."""
    asked: dict[str, tuple[float, str, tuple[str, ...]]] = {}
    if gate.leakage == "refuse":
        asked["leakage"] = 0.0, "none", (LEAKAGE,)
    if gate.near_duplicates_at_most is not None:
        limit = 100 * gate.near_duplicates_at_most
        asked["near duplicates"] = limit, f"at most {limit:g} %", (EARLIER, WITHIN)
    for name, (limit, said, kinds) in asked.items():
        if brought is None:
            yield Verdict(f"data: {name}", True, said, "stage 0 brings no samples", limit=limit)
            continue
        share = 0.0 if left_out else 100 * brought.count(*kinds) / brought.samples
        found = brought.sentence(*kinds) + (", left out" if left_out else "")
        yield Verdict(
            f"data: {name}", share <= limit, said, f"{found}: {said}", estimate=share, limit=limit,
            samples=brought.samples,
        )  # fmt: skip


def _of_cost(gate: CostGate, costs: Compared, number: int) -> Iterator[Verdict]:
    """Ratios, in percent."""
    asked = (
        ("operations of an image", "image", gate.flops_ratio_at_most),
        ("operations of a text", "text", gate.flops_ratio_at_most),
        ("parameters", "parameters", gate.parameters_ratio_at_most),
    )
    for name, field, limit in asked:
        if limit is None:
            continue
        most = f"at most {limit:g} times those of release {number}"
        if costs.is_same:
            yield Verdict(
                f"cost: {name}", limit >= 1, most,
                f"{name}: as many, since the architecture is the same: {most}",
                estimate=100.0, limit=100 * limit,
            )  # fmt: skip
        elif costs.stage is None or costs.live is None:
            which = "the stage's" if costs.stage is None else f"those of release {number}"
            said = f"{name}: {which} cannot be counted, so nothing can be said: {most}"
            yield Verdict(f"cost: {name}", False, most, said, limit=100 * limit)
        else:
            own, other = getattr(costs.stage, field), getattr(costs.live, field)
            said = f"{name}: {own:,} are {own / other:.3g} times {other:,}: {most}"
            yield Verdict(
                f"cost: {name}", own <= limit * other, most, said, estimate=100 * own / other,
                limit=100 * limit,
            )  # fmt: skip


def _of_speed(gate: SpeedGate, costs: Compared, number: int) -> Iterator[Verdict]:
    """Ratios, in percent."""
    limit = 100 * gate.latency_ratio_at_most
    most = f"at most {gate.latency_ratio_at_most:g} times that of release {number}"
    for of in (IMAGE, TEXT):
        name, label = f"speed: latency of {of}s", f"latency of {of}s"
        if costs.is_same:
            said = f"{label}: the same, since the architecture is the same: {most}"
            yield Verdict(name, limit >= 100, most, said, estimate=100.0, limit=limit)
            continue
        assert costs.latencies is not None
        found = costs.latencies[of]
        said = f"{label} {found.estimate:.3g} ({found.low:.3g} to {found.high:.3g}) times: {most}"
        yield Verdict(
            name, 100 * found.high <= limit, most, said, 100 * found.estimate, 100 * found.low,
            100 * found.high, limit, found.passes,
        )  # fmt: skip


def _of_gallery(gate: GalleryGate, gallery: str, drift: GalleryDrift) -> Iterator[Verdict]:
    for metric, limit in gate.least.items():
        label, asked = f"{gallery} {metric}", f"at least {limit:g}"
        name = f"galleries: {label}"
        if drift.is_same:
            said = f"{gallery} was embedded by these very weights: {metric} {asked}"
            yield Verdict(name, True, asked, said, limit=limit)
            continue
        row, why = _of_metric(drift.metrics, metric)
        if row is None:
            yield Verdict(name, False, asked, f"{label}: {why}: {asked}", limit=limit)
            continue
        estimate = _Estimate(row["value"], row["low"], row["high"])
        of = "rows" if metric == "cosine" else "queries"
        yield _verdict(name, label, estimate, limit, asked, row["samples"], of=of)


def _of_metric(metrics: pl.DataFrame | None, metric: str) -> tuple[dict[str, Any] | None, str]:
    """The row of all rows together, or why there is none."""
    if metrics is None:
        return None, "it is not embedded yet"
    whole = metrics.filter(pl.col("concept").is_null())
    rows = whole.filter(metric=metric).rows(named=True)
    if rows and rows[0]["low"] is not None:
        return rows[0], ""
    if not rows and not whole.filter(pl.col("metric").str.starts_with("recall")).is_empty():
        return None, "its embeddings are of another size than the stage's"
    return None, "it has too few rows to tell, or none that its dataset still has"


class _Judging:
    def __init__(
        self, roles: Mapping[str, str], stage: Evaluated, live: Evaluated | None, number: int
    ) -> None:
        self._roles, self._stage, self._live, self._number = roles, stage, live, number
        frames = {
            dataset: [rows, *([live.predictions[dataset]] if live is not None else [])]
            for dataset, rows in stage.predictions.items()
        }
        answers = {dataset: answers_of(dataset, both) for dataset, both in frames.items()}
        self._own = {dataset: both[0] for dataset, both in answers.items()}
        self._other = {dataset: both[-1] for dataset, both in answers.items()}

    def score(self, name: str, gate: ScoreGate) -> Verdict:
        """A score of all datasets together."""
        of, roles = (
            SCORES[name],
            {d: role for d, role in self._roles.items() if role in ROLES[name]},
        )
        metric = {one.name: value for one, value in metrics_of(roles).items()}[of.name]
        own, other = ({d: answers[d] for d in roles} for answers in (self._own, self._other))
        if gate.at_least is not None and gate.at_least != "live":
            found, limit = interval(metric, own), float(gate.at_least)
            return _verdict(name, of.label, found, limit, f"at least {limit:g}", _queries(own))
        return self._difference(name, of.label, metric, own, other, gate.margin or 0.0)

    def protected(self, gate: ProtectedGate) -> Iterator[Verdict]:
        """One dataset or concept at a time."""
        for dataset in gate.datasets:
            own, other = ({dataset: answers[dataset]} for answers in (self._own, self._other))
            yield self._difference(
                f"protected: {dataset}", dataset, itemgetter(dataset), own, other, gate.margin
            )
        assert self._live is not None
        there = {
            dataset: rows["concept"].unique().sort().to_list()
            for dataset, rows in self._stage.predictions.items()
        }
        for dataset, concept in concepts_of(gate, there):
            of = (self._stage.predictions[dataset], self._live.predictions[dataset])
            answers = answers_of(dataset, [rows.filter(concept=concept) for rows in of])
            own, other = ({dataset: one} for one in answers)
            label = f"{dataset}/{concept}"
            yield self._difference(
                f"protected: {label}", label, itemgetter(dataset), own, other, gate.margin
            )

    def calibration(self, gate: CalibrationGate) -> Verdict:
        """The mean calibration error of what is classified."""
        errors = [
            metrics[CALIBRATION_ERROR]
            for metrics in self._stage.metrics.values()
            if CALIBRATION_ERROR in metrics
        ]
        limit, asked = 100 * gate.ece_at_most, f"at most {100 * gate.ece_at_most:g} %"
        mean = sum(errors) / len(errors)
        return Verdict(
            "calibration", mean <= limit, asked, f"calibration error {mean:.2f} %: {asked}",
            estimate=mean, limit=limit,
            samples=_queries({d: self._own[d] for d, m in self._stage.metrics.items()
                              if CALIBRATION_ERROR in m}),
        )  # fmt: skip

    def _difference(
        self, gate: str, label: str, metric: Metric, own: Method, other: Method, margin: float
    ) -> Verdict:
        found = interval(metric, own, other)
        least = f"at most {margin:g} below" if margin else "not below"
        asked = f"{least} release {self._number}"
        return _verdict(gate, label, found, -margin, asked, _queries(own), signed=True)


def _queries(method: Method) -> int:
    return sum(answers.correct.shape[1] for answers in method.values())


def _verdict(
    gate: str, label: str, found: Interval | _Estimate, limit: float, asked: str, queries: int, *,
    signed: bool = False, of: str = "test samples",
) -> Verdict:  # fmt: skip
    """The whole interval has to lie at the limit or above it. queries: what it comes from, in
    number, and `of` what they are. signed: it is of a difference."""
    passed, form = found.low >= limit, "+.2f" if signed else ".2f"
    numbers = f"{found.estimate:{form}} ({found.low:{form}} to {found.high:{form}})"
    said = f"{label} {numbers.replace('-', '−')}: {asked}"
    needed = None
    if not passed and found.estimate > limit:
        # The width of an interval falls with the square root of the number of samples.
        wide = (found.estimate - found.low) / (found.estimate - limit)
        needed = math.ceil(queries * wide**2)
        said += f"; {queries} {of} are too few to tell, about {needed} would do"
    return Verdict(
        gate, passed, asked, said, found.estimate, found.low, found.high, limit, queries, needed
    )
