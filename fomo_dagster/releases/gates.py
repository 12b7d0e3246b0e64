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
from fomo_dagster.errors import nearest
from fomo_dagster.evaluation.calibration import signed_gaps
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
from fomo_dagster.releases.verdicts import NOTHING_LIVE, Verdict
from fomo_dagster.statistics.comparison import metrics_of
from fomo_dagster.statistics.intervals import Interval, Method, Metric, interval, student
from fomo_dagster.tables.answers import answers_of

SCORES: Mapping[str, StageMetric] = {
    "knowledge": KNOWLEDGE_ACCUMULATION,
    "retention": ZERO_SHOT_RETENTION,
    "geometric_mean": GEOMETRIC_MEAN,
}
"""Gate → the score that it is about."""
ACCURACY, CALIBRATION_ERROR = "accuracy", "expected_calibration_error"


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


def concepts_of(named: str, there: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(dataset, concept) of what a protected name stands for: the concept of all datasets that have
    it, or of one. there: dataset → its concepts."""
    return [
        (dataset, concept)
        for dataset, concepts in there.items()
        for concept in concepts
        if named in (concept, f"{dataset}/{concept}")
    ]


def absent(protected: ProtectedGate, there: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A sentence for each protected dataset that is not there, and each concept that none has.
    there: as above."""
    for dataset in protected.datasets:
        if dataset not in there:
            yield (
                f"release.gates.protected names the dataset {dataset!r}, which is not evaluated: "
                f"{nearest(dataset, there)}"
            )
    known = {concept for concepts in there.values() for concept in concepts}
    for named in protected.concepts:
        if not concepts_of(named, there):
            yield (
                f"release.gates.protected names the concept {named!r}, which no evaluation dataset "
                f"has: {nearest(named, known)}"
            )


def judge(
    gates: Gates, roles: Mapping[str, str], stage: Evaluated, live: Evaluated | None, number: int,
    brought: Found | None = None, earlier: Mapping[int, Found] | None = None, *,
    left_out: bool = False, costs: Compared | None = None,
    drifts: Mapping[str, GalleryDrift] | None = None,
) -> list[Verdict]:  # fmt: skip
    """A verdict of each gate. roles: dataset → adaptation or held_out; number: that of the live
    release, where there is one; brought: the near duplicates of what the stage brings, unless it
    brings nothing; earlier: those of earlier stages that its weights learnt from; left_out: nothing
    is trained on near duplicates; costs, and drifts by gallery: where a gate asks for them."""
    judging = _Judging(roles, stage, live, number)
    verdicts: list[Verdict] = []
    for name, gate in gates.asked.items():
        if live is None and name in gates.need_live:
            verdicts.append(Verdict(name, False, "comparison with what is live", NOTHING_LIVE))
        elif isinstance(gate, ScoreGate):
            verdicts.append(judging.score(name, gate))
        elif isinstance(gate, ProtectedGate):
            verdicts.extend(judging.protected(gate))
        elif isinstance(gate, CalibrationGate):
            verdicts.append(judging.calibration(gate))
        elif isinstance(gate, DataGate):
            verdicts.extend(_of_data(gate, brought, earlier or {}, left_out=left_out))
        elif isinstance(gate, CostGate) and costs is not None:
            verdicts.extend(_of_cost(gate, costs, number))
        elif isinstance(gate, SpeedGate) and costs is not None:
            verdicts.extend(_of_speed(gate, costs, number))
        elif isinstance(gate, GalleryGate):
            for gallery, drift in (drifts or {}).items():
                verdicts.extend(_of_gallery(gate, gallery, drift, is_first=live is None))
    return verdicts


def _of_data(
    gate: DataGate, brought: Found | None, earlier: Mapping[int, Found], *, left_out: bool
) -> Iterator[Verdict]:
    """What the stage brings, which is nothing at stage 0; and the test images, also those that came
    later, in what earlier stages brought to its weights."""
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
        learnt = {} if left_out or name != "leakage" else earlier
        before = [
            f"stage {stage}, which its weights learnt from: {one.sentence(*kinds)}"
            for stage, one in learnt.items()
            if one.count(*kinds)
        ]
        if name == "leakage":
            before.extend(brought.of_before)
            before.extend([brought.said_of_unknown] if brought.unknown else [])
        yield Verdict(
            f"data: {name}", share <= limit and not before, said,
            f"{'; '.join([found, *before])}: {said}", estimate=share, limit=limit,
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
        if costs.latencies is None:
            why = f"{label}: the files of release {number}'s backbone are not there"
            yield _untold(name, why, most, limit)
            continue
        found = costs.latencies[of]
        said = f"{label} {found.estimate:.3g} ({found.low:.3g} to {found.high:.3g}) times: {most}"
        yield Verdict(
            name, 100 * found.high <= limit, most, said, 100 * found.estimate, 100 * found.low,
            100 * found.high, limit, found.passes,
        )  # fmt: skip


def _of_gallery(
    gate: GalleryGate, gallery: str, drift: GalleryDrift, *, is_first: bool
) -> Iterator[Verdict]:
    """is_first: nothing is live that could have embedded it."""
    for metric, limit in gate.least.items():
        label, asked = f"{gallery} {metric}", f"at least {limit:g}"
        name = f"galleries: {label}"
        if drift.is_same:
            said = f"{gallery} was embedded by these very weights: {metric} {asked}"
            yield Verdict(name, True, asked, said, limit=limit)
            continue
        row, why = _of_metric(drift.metrics, metric)
        if row is None:
            said = NOTHING_LIVE if is_first else f"{label}: {why}: {asked}"
            yield Verdict(name, False, asked, said, limit=limit)
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
        missing = next((role for role in ROLES[name] if role not in roles.values()), None)
        if missing is not None:
            said = (
                f"{of.label}: no {missing} dataset is evaluated at this stage, so nobody can tell"
            )
            return Verdict(name, False, f"a score of {missing} datasets", said)
        metric = {one.name: value for one, value in metrics_of(roles).items()}[of.name]
        own, other = ({d: answers[d] for d in roles} for answers in (self._own, self._other))
        if gate.at_least is not None and gate.at_least != "live":
            found, limit = interval(metric, own), float(gate.at_least)
            return _verdict(name, of.label, found, limit, f"at least {limit:g}", _queries(own))
        return self._difference(name, of.label, metric, own, other, gate.margin or 0.0)

    def protected(self, gate: ProtectedGate) -> Iterator[Verdict]:
        """One dataset or concept at a time."""
        for dataset in gate.datasets:
            if dataset not in self._own:
                yield _untold(f"protected: {dataset}", f"{dataset} is not evaluated at this stage")
                continue
            own, other = ({dataset: answers[dataset]} for answers in (self._own, self._other))
            yield self._difference(
                f"protected: {dataset}", dataset, itemgetter(dataset), own, other, gate.margin
            )
        assert self._live is not None
        there = {
            dataset: rows["concept"].unique().sort().to_list()
            for dataset, rows in self._stage.predictions.items()
        }
        pairs = dict.fromkeys(pair for named in gate.concepts for pair in concepts_of(named, there))
        for named in gate.concepts:
            if not concepts_of(named, there):
                yield _untold(f"protected: {named}", f"{named} has no test sample at this stage")
        for dataset, concept in pairs:
            of = (self._stage.predictions[dataset], self._live.predictions[dataset])
            answers = answers_of(dataset, [rows.filter(concept=concept) for rows in of])
            own, other = ({dataset: one} for one in answers)
            label = f"{dataset}/{concept}"
            yield self._difference(
                f"protected: {label}", label, itemgetter(dataset), own, other, gate.margin
            )

    def calibration(self, gate: CalibrationGate) -> Verdict:
        """The mean calibration error of what is classified."""
        limit, asked = 100 * gate.ece_at_most, f"at most {100 * gate.ece_at_most:g} %"
        classified = [name for name, of in self._stage.metrics.items() if ACCURACY in of]
        errors = [self._stage.metrics[name].get(CALIBRATION_ERROR) for name in classified]
        untold = [name for name, error in zip(classified, errors, strict=True) if error is None]
        if untold or not classified:
            of = f"{untold[0]} has no probabilities" if untold else "nothing is classified"
            return _untold("calibration", f"calibration error: {of} at this stage", asked, limit)
        mean = sum(filter(None, errors)) / len(errors)
        wide = 100 * _spread_of_mean([self._stage.predictions[name] for name in classified])
        found = _Estimate(mean, max(0.0, mean - wide), min(100.0, mean + wide))
        queries = sum(self._stage.predictions[name].height for name in classified)
        said = f"calibration error {mean:.2f} % ({found.low:.2f} to {found.high:.2f}): {asked}"
        needed = None
        if mean < limit < found.high:
            needed = math.ceil(queries * (wide / (limit - mean)) ** 2)
            said += f"; {queries} test samples are too few to tell, about {needed} would do"
        return Verdict(
            "calibration", found.high <= limit, asked, said, mean, found.low, found.high, limit,
            queries, needed,
        )  # fmt: skip

    def _difference(
        self, gate: str, label: str, metric: Metric, own: Method, other: Method, margin: float
    ) -> Verdict:
        found = interval(metric, own, other)
        least = f"at most {margin:g} below" if margin else "not below"
        asked = f"{least} release {self._number}"
        return _verdict(gate, label, found, -margin, asked, _queries(own), signed=True)


def _untold(gate: str, why: str, asked: str = "", limit: float | None = None) -> Verdict:
    """Of what a stage cannot show."""
    asked = asked or "not below what is live"
    return Verdict(gate, False, asked, f"{why}, so nobody can tell: {asked}", limit=limit)


def _spread_of_mean(predictions: Sequence[pl.DataFrame]) -> float:
    """Half of the 95 % interval of the mean of several datasets' expected calibration errors, from
    0 to 1. An error is the mean of `signed_gaps`, and as uncertain as that: signs hardly change.

    Where all samples are right, or none is, gaps say nothing of what chance could do: then that of
    a share is added (Agresti and Coull 1998, two more of either). The degrees of freedom are
    Satterthwaite's (1946).
    """
    parts = []  # variances of the errors, with their degrees of freedom
    for rows in predictions:
        confidences = rows["probability_of_predicted"].cast(pl.Float64).to_numpy()
        right = rows["rank"].to_numpy() == 0
        count, gaps = len(right), signed_gaps(confidences, right)
        variance = float(gaps.var(ddof=1)) / count if count > 1 else 0.0
        if right.all() or not right.any():
            share = (right.sum() + 2) / (count + 4)
            variance += float(share * (1 - share)) / (count + 4)
        parts.append((variance, max(1, count - 1)))
    total = sum(variance for variance, _ in parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return student(freedom) * math.sqrt(total) / len(predictions)


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
