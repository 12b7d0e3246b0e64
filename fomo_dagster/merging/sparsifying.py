"""What of a task vector is kept before several become one: by magnitude, or at random.

Magnitudes are compared in single precision. If several have the magnitude at the cut-off, all of
them are kept. So what is kept depends on values alone, never on the order of parameters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fomo_dagster.merging.exact_quantiles import T, select
from fomo_dagster.merging.groups import tower_of
from fomo_dagster.merging.pieces import Array, Magnitudes, Piece, Rule, magnitudes
from fomo_dagster.merging.task_vectors import Elementwise
from fomo_dagster.merging.technique import Technique

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

Over = Literal["model", "tower", "tensor"]
Window = tuple[float, float]
"""The least and the largest magnitude that is kept; nothing if they are the wrong way round."""
NOTHING: Window = (math.inf, -math.inf)
EVERYTHING: Window = (0.0, math.inf)


class Trimming(Elementwise):
    """Each task vector keeps its `round(density · P)` largest magnitudes of P parameters."""

    density: float = Field(0.2, gt=0, le=1, description="Share of parameters to keep.")
    over: Over = Field("model", description="Among which parameters magnitudes are compared.")

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def ranks(size: int) -> tuple[int, int]:
            return size - round(self.density * size), size - 1

        return _windows(checkpoints, self.over, ranks)


class TailCutting(Elementwise):
    """Each task vector loses its `round(smallest · P)` smallest and `round(largest · P)` largest
    magnitudes."""

    smallest: float = Field(
        0.85, ge=0, lt=1, description="Share of the smallest magnitudes to drop."
    )
    largest: float = Field(0.01, ge=0, lt=1, description="Share of the largest magnitudes to drop.")
    over: Over = Field("tensor", description="Among which parameters magnitudes are compared.")

    @model_validator(mode="after")
    def _keeps_something(self) -> TailCutting:
        if self.smallest + self.largest >= 1:
            raise ValueError(
                "smallest and largest must add up to less than 1, or nothing would be left"
            )
        return self

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def ranks(size: int) -> tuple[int, int]:
            return round(self.smallest * size), size - 1 - round(self.largest * size)

        return _windows(checkpoints, self.over, ranks)


class Drawing(Elementwise):
    """What is kept is drawn at random."""

    seed: int = Field(0, ge=0, description="Seed of the random draws.")

    def for_stage(self, stage: int) -> Technique:
        number = hashlib.sha256(f"{self.seed}/{stage}".encode()).digest()[:4]
        return self.model_copy(update={"seed": int.from_bytes(number, "little")})


class Dropping(Drawing):
    """Drops each number of each task vector with probability p, and divides the others by 1 − p."""

    drop: float = Field(0.9, ge=0, lt=1, description="p: the probability to drop a number.")

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        least = np.uint64(math.ceil(self.drop * 2.0**53) << 11)  # whose `uniform` is p or the next

        def rule(piece: Piece) -> Array:
            vectors = piece.into_vectors()
            for k, vector in enumerate(vectors):
                lots = _lots(f"{self.seed}/{k}/{piece.name}", piece.start, len(vector))
                vector *= lots >= least
            vectors *= 1 / (1 - self.drop)
            return vectors

        return lambda name: rule


class RankedDropping(Drawing):
    """MAGPRUNE: the probability to drop a number falls with the rank of its magnitude in its row,
    from p + ε/2 for the smallest to p − ε/2 for the largest, in equal steps. The others are divided
    by 1 − p_i (arXiv 2406.11617). Equal magnitudes share the mean of their ranks."""

    by_rows: ClassVar[bool] = True

    drop: float = Field(0.7, ge=0, lt=1, description="p: the mean probability to drop a number.")
    spread: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="ε: the difference in probability between the smallest and the largest "
        "magnitude.",
    )

    @model_validator(mode="after")
    def _has_chances(self) -> RankedDropping:
        least, most = self.drop - self.spread / 2, self.drop + self.spread / 2
        if least < 0 or most >= 1:
            raise ValueError(
                f"drop ± spread/2 is {least:g} to {most:g}, and must be probabilities from 0 "
                "to below 1"
            )
        return self

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def rule_of(name: str) -> Rule:
            row = checkpoints.row(name)

            def rule(piece: Piece) -> Array:
                vectors = piece.into_vectors()
                for k, vector in enumerate(vectors):
                    draws = uniform(f"{self.seed}/{k}/{name}", piece.start, len(vector))
                    places = _places_in_rows(magnitudes(vector).reshape(-1, row)).reshape(-1)
                    chances = self.drop + self.spread * (0.5 - places)
                    vector *= (draws >= chances) / (1 - chances)
                return vectors

            return rule

        return rule_of


class Choosing(Drawing):
    """Keeps each parameter in one task vector, drawn at random: model k with probability |c_k| / Σ
    |c|."""

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def rule(piece: Piece) -> Array:
            vectors = piece.into_vectors()
            models, width = vectors.shape
            draws = uniform(f"{self.seed}/{piece.name}", piece.start, width)
            if self.coefficients is None:
                chosen = (draws * models).astype(np.int64)
            else:
                bounds = np.abs(self.weights(models)).cumsum()
                chosen = np.searchsorted(bounds / (bounds[-1] or 1.0), draws, side="right")
            vectors *= np.arange(models)[:, None] == chosen
            return vectors

        return lambda name: rule


def uniform(seed: str, start: int, count: int) -> Array:
    """Numbers `start` to `start + count` of a sequence in [0, 1) that `seed` alone decides.

    start: a multiple of 4. The sequence is Philox's (Salmon et al. 2011), whose numbers can be had
    from anywhere and are the same on every machine.
    """
    return (_lots(seed, start, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _lots(seed: str, start: int, count: int) -> npt.NDArray[np.uint64]:
    """The bits of `uniform`, of which it takes the upper 53."""
    key = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    stream = np.random.Philox(key=key)
    stream.advance(start // 4)
    bits: npt.NDArray[np.uint64] = stream.random_raw(count)
    return bits


def _windows(
    checkpoints: Checkpoints, over: Over, ranks: Callable[[int], tuple[int, int]]
) -> Callable[[str], Rule]:
    """ranks: number of parameters → the ranks of the smallest and largest magnitude to keep."""
    found: dict[str, list[Window]] = {}
    names_of: dict[str, list[str]] = {}

    def group_of(name: str) -> str:
        if over == "tensor":
            return name
        # The temperature is a tower of its own nowhere but in scales: alone it would always go.
        return "image" if over == "tower" and tower_of(name) == "image" else "the rest"

    for name in checkpoints.names:
        names_of.setdefault(group_of(name), []).append(name)

    def rule_of(name: str) -> Rule:
        group = group_of(name)
        if group not in found:
            if over == "tensor":
                found.clear()  # it is not asked for again
            found[group] = [
                _window(checkpoints, names_of[group], model, ranks)
                for model in range(checkpoints.count)
            ]
        windows = found[group]

        def rule(piece: Piece) -> Array:
            vectors = piece.into_vectors()
            for vector, (least, most) in zip(vectors, windows, strict=True):
                compared = magnitudes(vector)
                keeps = compared >= least
                if most < math.inf:
                    keeps &= compared <= most
                vector *= keeps
            return vectors

        return rule

    return rule_of


def _window(
    checkpoints: Checkpoints,
    names: Sequence[str],
    model: int,
    ranks: Callable[[int], tuple[int, int]],
) -> Window:
    size = sum(checkpoints.size(name) for name in names)
    first, last = ranks(size)
    if first > last:
        return NOTHING

    def go_through(work: Callable[[Magnitudes], T]) -> Iterator[T]:
        for name in names:
            yield from checkpoints.over_magnitudes(name, model, work)

    def sampled(step: int) -> Magnitudes:
        return np.concatenate([
            magnitudes(piece.into_vectors()[0])
            for name in names
            for piece in checkpoints.sampled(name, step, model)
        ])  # fmt: skip

    if (first, last) == (0, size - 1):
        return EVERYTHING
    if last == size - 1:
        return select(go_through, [first], size, sampled)[0], math.inf
    least, most = select(go_through, [first, last], size, sampled)
    return least, most


def _places_in_rows(found: Magnitudes) -> Array:
    """(R, n): the rank of each in its row over n − 1, 0 the smallest; of equals the mean of their
    ranks, ½ where a row has one number."""
    rows, length = found.shape
    if length == 1:
        return np.full((rows, 1), 0.5)
    order = found.argsort(axis=1)
    ordered = np.take_along_axis(found, order, axis=1)
    differs = ordered[:, 1:] != ordered[:, :-1]
    ranks = np.arange(length)
    first = np.zeros((rows, length), np.int64)
    first[:, 1:] = np.where(differs, ranks[1:], 0)
    last = np.full((rows, length), length - 1)
    last[:, :-1] = np.where(differs, ranks[:-1], length - 1)
    np.maximum.accumulate(first, axis=1, out=first)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    places = np.empty((rows, length))
    np.put_along_axis(places, order, (first + last) / (2 * (length - 1)), axis=1)
    return places
