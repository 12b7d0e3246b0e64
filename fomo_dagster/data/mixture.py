"""How many samples of each pool a batch holds: shares (λ_D, λ_B, λ_P) turned into counts.

The shares of a stage may change over its steps; `experiment/mixture.py` declares them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

from fomo_dagster.errors import InputError, nearest

POOLS = ("update", "buffer", "pretraining")
"""The pools, in the order of their rows in a batch."""

_LEFT_OVER = ("pretraining", "update", "buffer")  # whose rows round up, as in the released code

# Shares are written in decimals, and 0.33 · 50 must be 16.5 exactly for a tie to be one.
LARGEST_DENOMINATOR = 1_000_000


Point: TypeAlias = tuple[float, Mapping[str, float]]
"""A place, and the shares of the pools there."""


def exact(share: float) -> Fraction:
    """A share as the decimal that it was written as."""
    return Fraction(share).limit_denominator(LARGEST_DENOMINATOR)


def first_stage_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares of a stage without buffer: half of the buffer's share to each other pool in use.

    If only one other pool is in use it takes all. Raises `InputError` if none is. Whole rows are
    divided by `first_stage_sizes`.
    """
    used = [pool for pool in POOLS if pool != "buffer" and shares.get(pool, 0) > 0]
    if not used:
        raise InputError("the first stage has no buffer, and no other pool has a share above 0")
    gain = shares.get("buffer", 0) / len(used)
    return {pool: shares[pool] + gain if pool in used else 0.0 for pool in POOLS}


def first_stage_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """The rows of a batch of a stage without buffer: half of the buffer's to each other pool in
    use, the odd one to the update pool, as in the released code: 175/168/169 becomes 259/0/253."""
    halves = {"update": sizes["buffer"] - sizes["buffer"] // 2, "pretraining": sizes["buffer"] // 2}
    if not sizes["pretraining"]:
        halves = {"update": sizes["buffer"], "pretraining": 0}
    elif not sizes["update"]:
        halves = {"update": 0, "pretraining": sizes["buffer"]}
    return {pool: sizes[pool] + halves[pool] if pool in halves else 0 for pool in POOLS}


def batch_sizes(
    batch_size: int, shares: Mapping[str, float | Fraction], may_vanish: Container[str] = ()
) -> dict[str, int]:
    """Samples of each pool in a batch. `batch_size` · share is rounded down, and what is left over
    goes one row each to pretraining, update and buffer in turn, as in FoMo-in-Flux's code. A pool
    that would have none comes first.

    The result has all of `POOLS`, in that order, and adds up to `batch_size`. A pool with share 0
    (or none) has 0. Raises `InputError` if a share above 0 comes to no sample at all, which would
    silently change the method; pools in `may_vanish` are exempt.
    """
    whole = {
        pool: Fraction(shares.get(pool, 0)).limit_denominator(LARGEST_DENOMINATOR) for pool in POOLS
    }
    total = sum(whole.values())
    if total <= 0:
        raise InputError(f"no pool has a share above 0: {dict(shares)}")
    quotas = {pool: batch_size * share / total for pool, share in whole.items()}
    sizes = {pool: math.floor(quota) for pool, quota in quotas.items()}
    # A pool of less than half a sample is no taker, or 2 % of 9 would silently become 11 %; one of
    # more than that comes first where it has none, or three thirds of 3 would be 2 and 1.
    in_turn = sorted(
        (pool for pool in _LEFT_OVER if quotas[pool] > 0),
        key=lambda pool: (2 * quotas[pool] < 1, sizes[pool] > 0),
    )
    for pool in in_turn[: batch_size - sum(sizes.values())]:
        sizes[pool] += 1
    for pool, size in sizes.items():
        if size == 0 and shares.get(pool, 0) > 0 and pool not in may_vanish:
            raise InputError(
                f"batch_size {batch_size} is too small for the mixture: the {pool} pool's "
                f"share of {float(shares[pool]):g} gives no sample; raise batch_size, or set "
                "the share to 0"
            )
    return sizes


def drawn_for(kept: int, share: float) -> int:
    """How many samples to draw if a share of them is kept, and so many shall be: ⌊kept / share +
    ½⌋."""
    return math.floor(kept / Fraction(str(share)) + Fraction(1, 2))


def kept_of(drawn: int, share: float) -> int:
    """How many of the drawn samples are kept, ⌊drawn · share + ½⌋: the inverse of `drawn_for`."""
    return math.floor(drawn * Fraction(str(share)) + Fraction(1, 2))


class StepSizes:
    """How many samples of each pool each batch of a stage holds, as runs of equal batches.

    runs: the first step of each run and the sizes from it on, in order, from step 0. Raises
    `InputError` for an unknown pool.
    """

    def __init__(self, runs: Iterable[tuple[int, Mapping[str, int]]], steps: int) -> None:
        self.steps = steps
        self._firsts: list[int] = []
        self._sizes: list[dict[str, int]] = []
        self._before: list[dict[str, int]] = []
        for first, sizes in runs:
            for unknown in sizes.keys() - set(POOLS):
                raise InputError(f"unknown pool {unknown!r}: {nearest(unknown, POOLS)}")
            of_all = {pool: sizes.get(pool, 0) for pool in POOLS}
            if self._sizes and self._sizes[-1] == of_all:
                continue
            before = self.before(first) if self._sizes else dict.fromkeys(POOLS, 0)
            self._firsts.append(first)
            self._sizes.append(of_all)
            self._before.append(before)

    @classmethod
    def constant(cls, sizes: Mapping[str, int], steps: int) -> StepSizes:
        """The same sizes at every step."""
        return cls([(0, sizes)], steps)

    def at(self, step: int) -> dict[str, int]:
        """Samples of each of `POOLS` in the batch of a step."""
        return dict(self._sizes[self._run(step)])

    def before(self, step: int) -> dict[str, int]:
        """Samples of each of `POOLS` in the batches of all steps before one."""
        run = self._run(step)
        past = step - self._firsts[run]
        return {pool: self._before[run][pool] + past * self._sizes[run][pool] for pool in POOLS}

    def enlarged(self, share: float) -> StepSizes:
        """The sizes of larger batches, of which that share is kept and gives these."""
        larger = ({p: drawn_for(kept, share) for p, kept in of.items()} for of in self._sizes)
        return StepSizes(zip(self._firsts, larger, strict=True), self.steps)

    @property
    def drawn(self) -> dict[str, int]:
        """Samples of each of `POOLS` in all batches."""
        return self.before(self.steps)

    @property
    def largest(self) -> dict[str, int]:
        """The most samples of each of `POOLS` that a batch holds."""
        return {pool: max(sizes[pool] for sizes in self._sizes) for pool in POOLS}

    def _run(self, step: int) -> int:
        return bisect_right(self._firsts, step) - 1


@dataclass(frozen=True)
class StageShares:
    """The shares of the pools over the steps of one stage.

    points: a place as a share of the steps, from 0 on, and the pools' shares there, in ascending
    order. They hold until the next point or, where `linear`, change evenly from one to the next;
    after the last one they stay. Of n steps, the first ⌈place · n⌉ come before a point that holds;
    for those that are `linear`, step s is at s / (n - 1), so that both ends are reached.

    with_buffer: the points of the same stage if it had a buffer, where it has none. Held rows are
    divided from theirs, as the released code does; on a ramp the shares are, so that it stays even.
    """

    points: tuple[Point, ...]
    linear: bool = False
    with_buffer: tuple[Point, ...] | None = None

    @property
    def is_constant(self) -> bool:
        """Whether there is only one point."""
        return len(self.points) == 1

    @cached_property
    def pools(self) -> tuple[str, ...]:
        """Those with a share at a point; `sizes` sees to it that a step draws from each."""
        return tuple(p for p in POOLS if any(shares.get(p, 0) > 0 for _, shares in self.points))

    def without_buffer(self) -> StageShares:
        """The shares for a stage that has no buffer; see `first_stage_shares`."""
        points = tuple((place, first_stage_shares(shares)) for place, shares in self.points)
        return StageShares(points, self.linear, self.points)

    def as_data(self) -> dict[str, Any]:
        """Plain data, for a recipe: the shares alone where they do not change."""
        if self.is_constant:
            return dict(self.points[0][1])
        points = [{"at": place, **shares} for place, shares in self.points]
        return {"between": "linear" if self.linear else "held", "points": points}

    def mean(self, pool: str) -> float:
        """A pool's share of all samples of the stage, before rounding to whole samples."""
        total = 0.0
        shares = [(place, of_pools.get(pool, 0)) for place, of_pools in self.points]
        for (start, here), (end, there) in pairwise([*shares, (1.0, shares[-1][1])]):
            total += (end - start) * ((here + there) / 2 if self.linear else here)
        return total

    def mean_size(self, pool: str, batch_size: int) -> float:
        """Samples of a pool in a batch: exactly where the shares are constant, else on average."""
        if self.is_constant:
            return self._held_sizes(batch_size)[0][pool]
        return batch_size * self.mean(pool)

    def sizes(self, batch_size: int, steps: int) -> StepSizes:
        """What the shares come to, by `batch_sizes`, in `steps` steps.

        Raises `InputError`, with the place, for a share above 0 that comes to no sample, but on the
        way from or to a point where it is 0; for a point that comes to no step; for a pool that
        no step draws from, although it has a share.
        """
        sizes = self._unchecked(batch_size, steps)
        for place, first, end in () if self.linear else self._held(steps):
            if first == end:
                raise InputError(
                    f"the point at {place:g} of the mixture falls on none of the {steps} steps of "
                    "the stage: raise the budget, or leave the point out"
                )
        for pool in self.pools:
            if not sizes.drawn[pool]:
                raise InputError(
                    f"the {pool} pool has a share in the mixture, but none of the {steps} steps of "
                    "the stage draws from it: raise batch_size or the budget, or set the share to 0"
                )
        return sizes

    def drawn(self, pool: str, batch_size: int, steps: int) -> int:
        """Samples of a pool in all batches; raises for a share that comes to no sample alone."""
        return self._unchecked(batch_size, steps).drawn[pool]

    def _unchecked(self, batch_size: int, steps: int) -> StepSizes:
        if self.linear:
            return StepSizes(self._changing(batch_size, steps), steps)
        held = zip(self._held_sizes(batch_size), self._held(steps), strict=True)
        runs = ((first, sizes) for sizes, (_, first, end) in held if first < end)
        return StepSizes(runs, steps)

    def _held_sizes(self, batch_size: int) -> list[dict[str, int]]:
        """The rows of each pool at each point, where points hold."""
        if self.with_buffer is None:
            return [self._sizes_at(place, batch_size, shares) for place, shares in self.points]
        return [
            first_stage_sizes(self._sizes_at(place, batch_size, shares, vanishing=("buffer",)))
            for place, shares in self.with_buffer
        ]

    def _held(self, steps: int) -> Iterator[tuple[float, int, int]]:
        """Each point's place, its first step and the one after its last."""
        places = [place for place, _ in self.points]
        firsts = [math.ceil(exact(place) * steps) for place in places]
        for place, (first, end) in zip(places, pairwise([*firsts, steps]), strict=True):
            yield place, first, end

    def _changing(self, batch_size: int, steps: int) -> Iterator[tuple[int, dict[str, int]]]:
        for step in range(steps):
            place = Fraction(step, max(1, steps - 1))
            ends = [shares for _, shares in _around(self.points, place)]
            vanishing = {pool for pool in POOLS if any(not of.get(pool, 0) for of in ends)}
            shares = between(self.points, place)
            yield step, self._sizes_at(float(place), batch_size, shares, vanishing)

    def _sizes_at(
        self,
        place: float,
        batch_size: int,
        shares: Mapping[str, float | Fraction],
        vanishing: Container[str] = (),
    ) -> dict[str, int]:
        try:
            return batch_sizes(batch_size, shares, vanishing)
        except InputError as error:
            if self.is_constant:
                raise
            raise InputError(f"at {place:.3g} of the steps, {error}") from error


def between(points: Sequence[Point], place: Fraction) -> dict[str, Fraction]:
    """The shares at a place on the straight lines between points; after the last point, its shares.

    points: in ascending order, the first of them not after the place.
    """
    (start, here), (end, there) = _around(points, place)
    way = (place - exact(start)) / (exact(end) - exact(start)) if end > start else Fraction(0)
    return {
        pool: exact(here.get(pool, 0)) * (1 - way) + exact(there.get(pool, 0)) * way
        for pool in POOLS
    }


def _around(points: Sequence[Point], place: Fraction) -> tuple[Point, Point]:
    """The points before and after a place: one twice where it is there, or the last one."""
    places = [exact(at) for at, _ in points]
    after = bisect_right(places, place)
    first = points[after - 1]
    return first, first if places[after - 1] == place or after == len(points) else points[after]
