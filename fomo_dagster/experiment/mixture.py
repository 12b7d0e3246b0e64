"""The declaration of the shares of the pools in every batch.

The shares are constant, or change over the stages or over the steps of each stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.data.mixture import POOLS, StageShares, batch_sizes, between
from fomo_dagster.errors import InputError


class Mixture(Declaration):
    """The shares of every batch (λ_D, λ_B, λ_P). They add up to 1."""

    update: float = Field(0.34, ge=0, le=1, description="Share of the stage's own chunk.")
    buffer: float = Field(0.33, ge=0, le=1, description="Share of earlier chunks.")
    pretraining: float = Field(0.33, ge=0, le=1, description="Share of the pretraining pool.")

    @model_validator(mode="after")
    def _adds_up(self) -> Mixture:
        total = self.update + self.buffer + self.pretraining
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, not {total:g}")
        if self.update == 0:
            raise ValueError("update must be above 0: a stage without new samples learns nothing")
        return self

    def of_stage(self, stage: int) -> StageShares:
        """The shares over the steps of a stage that has a buffer."""
        return StageShares(((0.0, self.model_dump()),))

    def shares(self, pool: str) -> Iterator[tuple[str, float]]:
        """Where a share of the pool is declared, and the share."""
        yield f"mixture.{pool}", getattr(self, pool)

    def check(self, batch_size: int, steps: int | None) -> None:
        """Raise `InputError` if a share comes to no sample of a batch that has a buffer."""
        batch_sizes(batch_size, self.model_dump())


class Point(Declaration):
    """The shares at a place. They add up to 1."""

    at: float = Field(
        ge=0, description="The number of a stage, or a share of the steps, counted from 0."
    )
    update: float = Field(0.0, ge=0, le=1, description="Share of the stage's own chunk.")
    buffer: float = Field(0.0, ge=0, le=1, description="Share of earlier chunks.")
    pretraining: float = Field(0.0, ge=0, le=1, description="Share of the pretraining pool.")

    @model_validator(mode="after")
    def _adds_up(self) -> Point:
        total = self.update + self.buffer + self.pretraining
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares at {self.at:g} must add up to 1, not {total:g}")
        return self


class ChangingMixture(Declaration):
    """Shares that change. Those of a batch add up to 1."""

    over: Literal["stages", "steps"] = Field(
        description="Change from stage to stage, or over the steps of each stage."
    )
    between: Literal["held", "linear"] = Field(
        "held",
        description="held: a point's shares stay until the next point. linear: they change evenly "
        "from one point to the next. After the last point they stay.",
    )
    points: tuple[Point, ...] = Field(
        min_length=1,
        description="The points in ascending order: from stage 1 on, or from 0 to 1 of the steps.",
    )

    @model_validator(mode="after")
    def _has_points_in_order(self) -> ChangingMixture:
        places = [point.at for point in self.points]
        first = 1 if self.over == "stages" else 0
        if places[0] != first:
            raise ValueError(
                f"the points over {self.over} begin at {first}, and the first one is at "
                f"{places[0]:g}"
            )
        for before, after in pairwise(places):
            if after <= before:
                raise ValueError(
                    f"the points must be in ascending order, and {after:g} comes after {before:g}"
                )
        if self.over == "stages":
            fractions = [place for place in places if place != int(place)]
            if fractions:
                raise ValueError(f"a point over stages is at a stage's number, not {fractions[0]}")
        elif places[-1] > 1 or (places[-1] == 1 and self.between == "held"):
            within = "no more than 1" if self.between == "linear" else "below 1"
            raise ValueError(
                f"a point over steps is at a share of the steps, {within}, not at {places[-1]:g}"
            )
        return self

    @model_validator(mode="after")
    def _learns_something_new(self) -> ChangingMixture:
        if self.over == "steps":
            if not any(point.update for point in self.points):
                raise ValueError("update must be above 0 at a point: nothing new would be learnt")
            for point in self.points:
                if not point.update and not point.pretraining:
                    raise ValueError(
                        f"at {point.at:g} only the buffer has a share, and the first stage has no "
                        "buffer: give another pool a share"
                    )
            return self
        for point in self.points:
            if not point.update:
                raise ValueError(
                    f"update is 0 from stage {point.at:g} on: a stage without new samples learns "
                    "nothing"
                )
        return self

    def of_stage(self, stage: int) -> StageShares:
        """The shares over the steps of a stage that has a buffer."""
        points = tuple((p.at, p.model_dump(exclude={"at"})) for p in self.points)
        if self.over == "steps":
            return StageShares(points, self.between == "linear")
        if self.between == "held":
            here = next(shares for at, shares in reversed(points) if at <= stage)
        else:
            exactly = between(points, Fraction(stage))
            here = {pool: float(share) for pool, share in exactly.items()}
        return StageShares(((0.0, here),))

    def shares(self, pool: str) -> Iterator[tuple[str, float]]:
        """Where a share of the pool is declared, and the share."""
        for number, point in enumerate(self.points):
            yield f"mixture.points.{number}.{pool}", getattr(point, pool)

    def check(self, batch_size: int, steps: int | None) -> None:
        """Raise `InputError`, with the place, if a share comes to no sample of a batch: over stages
        in any of them, over steps at a point. Also raise it if no step of a stage reaches a held
        point, where the number of steps is known."""
        if self.over == "stages":
            last = int(self.points[-1].at)
            for stage in range(1, last + 1):
                shares = self.of_stage(stage)
                if stage == 1:
                    shares = shares.without_buffer()
                self._check(f"stage {stage}", shares.points[0][1], batch_size)
        else:
            for point in self.points:
                place = f"{point.at:g} of the steps"
                self._check(place, point.model_dump(include=set(POOLS)), batch_size)
            if self.between == "held" and steps:
                self.of_stage(1).sizes(batch_size, steps)

    @staticmethod
    def _check(place: str, shares: Mapping[str, float], batch_size: int) -> None:
        try:
            batch_sizes(batch_size, shares)
        except InputError as error:
            raise InputError(f"at {place}, {error}") from error


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return "changing" if value.keys() & ChangingMixture.model_fields.keys() else "constant"
    return "changing" if isinstance(value, ChangingMixture) else "constant"


AnyMixture: TypeAlias = Annotated[
    Annotated[Mixture, Tag("constant")] | Annotated[ChangingMixture, Tag("changing")],
    Discriminator(_form),
]
