"""Which test samples a checkpoint gets wrong, and which two tell apart: what became wrong, and what
became right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.tables.evaluated_alike import alike, evaluated
from fomo_dagster.tables.predictions import QUERY, Predictions, read_predictions

NEWLY_WRONG, NEWLY_RIGHT, STILL_WRONG, STILL_RIGHT = (
    "newly_wrong", "newly_right", "still_wrong", "still_right",
)  # fmt: skip


@dataclass(frozen=True)
class Changes:
    """The queries that two sets of predictions share.

    rows: a query with `predicted`, `rank` and what else is known of it now, `predicted_before`,
    `rank_before`, and `change`. left_out: how many queries only one of the two has.
    """

    rows: pl.DataFrame
    left_out: int

    @cached_property
    def by_dataset(self) -> pl.DataFrame:
        """Dataset, samples, and how many of them changed in which way."""
        return self._counted("dataset").sort("dataset")

    @cached_property
    def by_concept(self) -> pl.DataFrame:
        """As `by_dataset` for each concept, the hardest hit first, with what most of those that
        are newly wrong are taken for."""
        of_wrong = (
            self.rows.filter(change=NEWLY_WRONG)
            .group_by("dataset", "concept", "predicted")
            .len()
            .sort("len", "predicted", descending=[True, False])
            .group_by("dataset", "concept", maintain_order=True)
            .agg(taken_for=pl.col("predicted").first())
        )
        counted = self._counted("dataset", "concept").join(
            of_wrong, on=["dataset", "concept"], how="left"
        )
        lost = pl.col(NEWLY_WRONG) - pl.col(NEWLY_RIGHT)
        return counted.sort(
            lost, NEWLY_WRONG, "dataset", "concept", descending=[True, True, False, False]
        )

    def _counted(self, *by: str) -> pl.DataFrame:
        kinds = (NEWLY_WRONG, NEWLY_RIGHT, STILL_WRONG)
        counts = {kind: (pl.col("change") == kind).sum().cast(pl.Int64) for kind in kinds}
        return self.rows.group_by(by).agg(samples=pl.len().cast(pl.Int64), **counts)


def changes(before: Predictions, after: Predictions) -> Changes:
    """What changed from one to the other, query by query.

    Raises `InputError` if they share no query.
    """
    known = before.rows.select(
        *QUERY,
        predicted_before="predicted",
        rank_before="rank",
        correct_before="correct",
    )
    both = after.rows.join(known, on=QUERY, how="inner", nulls_equal=True, maintain_order="left")
    if both.is_empty():
        raise InputError(
            f"{before.experiment}, stage {before.stage}, and {after.experiment}, stage "
            f"{after.stage}, were evaluated on no sample in common"
        )
    now, then = pl.col("correct"), pl.col("correct_before")
    change = (
        pl.when(then & ~now).then(pl.lit(NEWLY_WRONG))
        .when(~then & now).then(pl.lit(NEWLY_RIGHT))
        .when(now).then(pl.lit(STILL_RIGHT))
        .otherwise(pl.lit(STILL_WRONG))
    )  # fmt: skip
    left_out = before.rows.height + after.rows.height - 2 * both.height
    return Changes(both.with_columns(change=change), left_out)


@dataclass(frozen=True)
class Errors:
    """What a stage gets wrong; where another is named, what it gets wrong and that did not.
    remarks: what was left out of both."""

    now: Predictions
    before: Predictions | None
    remarks: Sequence[str] = ()

    @cached_property
    def changes(self) -> Changes:
        """Without another, against one that is always right."""
        right = replace(self.now, rows=self.now.rows.with_columns(correct=True))
        return changes(self.before or right, self.now)

    @property
    def wrong(self) -> pl.DataFrame:
        """The queries that are (newly) wrong: the hardest hit concepts first, of each what it is
        most sure of."""
        order = self.changes.by_concept.select("dataset", "concept").with_row_index("place")
        return (
            self.changes.rows.filter(change=NEWLY_WRONG)
            .join(order, on=["dataset", "concept"])
            .sort("place", "probability_of_predicted", descending=[False, True], nulls_last=True)
            .drop("place")
        )

    @property
    def samples(self) -> pl.DataFrame:
        """The queries that are wrong, or that changed."""
        shown = self.changes.rows.filter(pl.col("change").is_in([NEWLY_WRONG, NEWLY_RIGHT]))
        if self.before is None:
            shown = shown.drop("change", "predicted_before", "rank_before", "correct_before")
        return shown

    @property
    def title(self) -> str:
        """What is looked at."""
        said = f"{self.now.experiment}, stage {self.now.stage}"
        if self.before is None:
            return said
        other = f"stage {self.before.stage}"
        if self.before.experiment != self.now.experiment:
            other = f"{self.before.experiment}, {other}"
        return f"{said} against {other}"

    def shown(self, counted: pl.DataFrame) -> pl.DataFrame:
        """The rows of `by_dataset` or `by_concept` under the headings that they have here."""
        if self.before is None:
            named = {NEWLY_WRONG: "wrong", "taken_for": "mostly taken for"}
            return counted.drop(NEWLY_RIGHT, STILL_WRONG).rename(named, strict=False)
        named = {kind: kind.replace("_", " ") for kind in (NEWLY_WRONG, NEWLY_RIGHT, STILL_WRONG)}
        return counted.rename({**named, "taken_for": "mostly taken for"}, strict=False)


def errors_of(
    home: Home,
    experiment: str,
    *,
    stage: int | None = None,
    dataset: str | None = None,
    since: int | None = None,
    against: str | None = None,
    common: bool = False,
) -> Errors:
    """since: a stage to compare with; against: another experiment whose stage that is, by default
    its last one. Raises `InputError` as `read_predictions` and `changes` do, and where the two
    experiments have other datasets or evaluate one otherwise; with `common` what they share is
    taken, if there is anything."""
    now = read_predictions(home, experiment, stage, dataset)
    if against is None and since is None:
        return Errors(now, None)
    before = read_predictions(home, against or experiment, since, dataset)
    if before.experiment == now.experiment:
        return Errors(now, before)
    both = {}
    for one in (before, now):
        known = evaluated(home, one.experiment, one.stage)
        both[one.experiment] = {d: of for d, of in known.items() if dataset in (None, d)}
    found = alike(both, common=common)
    now, before = (
        replace(one, rows=one.rows.filter(pl.col("dataset").is_in(list(found.kept))))
        for one in (now, before)
    )
    return Errors(now, before, found.left_out)
