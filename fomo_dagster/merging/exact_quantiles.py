"""The numbers of given ranks among very many, exactly, without sorting or holding them.

A sample says between which two numbers each almost surely lies. One pass counts what is below, and
keeps what is between. Where the sample was wrong, or too much is between, two passes count: numbers
in single precision that are not negative are ordered like their 31 bits, and so the upper 15 bits
of the number at a rank are found first, then the lower 16 among the numbers with these upper bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fomo_dagster.merging.pieces import Magnitudes

T = TypeVar("T")
Bracket: TypeAlias = tuple[np.float32, np.float32]

SAMPLED = 2**18
"""Numbers of a sample, about; if there are not more, all of them."""
HELD_AT_MOST = 2**22
"""Numbers between those of a bracket: 16 MiB."""
_DEVIATIONS = 4  # of the rank in a sample: one sample in 16,000 is wrong
_STEP_DIVIDES_NO = 2 * 3 * 5 * 7 * 11  # as the lengths of rows do, whose places are not alike
_UPPER, _LOWER = 2**15, 2**16


class Pass(Protocol):
    """Goes through all numbers once, in pieces, and gives what `work` makes of each piece."""

    def __call__(self, work: Callable[[Magnitudes], T]) -> Iterable[T]: ...


class _Counts:
    """How often each value below a limit occurs; values that come in small pieces are gathered
    first, as adding up the counts of each would take longer than counting."""

    def __init__(self, limit: int) -> None:
        self._counts = np.zeros(limit, np.int64)
        self._gathered: list[npt.NDArray[np.uint16]] = []
        self._waiting = 0

    def add(self, values: npt.NDArray[np.uint16]) -> None:
        self._gathered.append(values)
        self._waiting += len(values)
        if self._waiting >= 8 * len(self._counts):
            self.total()

    def total(self) -> npt.NDArray[np.int64]:
        if self._gathered:
            values = np.concatenate(self._gathered)
            self._counts += np.bincount(values, minlength=len(self._counts))
            self._gathered, self._waiting = [], 0
        return self._counts


def select(
    go_through: Pass, ranks: Sequence[int], size: int, sampled: Callable[[int], Magnitudes]
) -> list[float]:
    """The numbers that have `rank` others before them when all are sorted (0: the smallest).

    size: how many numbers there are. sampled: gives about every step-th of them. The numbers are
    float32, finite and not negative (nor −0, but as abs gives them). One pass, or a second and a
    third; 16 MiB at most are held for each rank, a few as a rule.
    """
    step = max(1, size // SAMPLED)
    while step > 1 and math.gcd(step, _STEP_DIVIDES_NO) > 1:
        step += 1
    sample = sampled(step)
    if step == 1:
        return [float(number) for number in np.partition(sample, ranks)[list(ranks)]]
    brackets = [_bracket(sample, rank / (size - 1)) for rank in ranks]
    return _between(go_through, ranks, brackets) or _counted(go_through, ranks)


def _bracket(sample: Magnitudes, share: float) -> Bracket:
    """What the number lies between (or is) that has this share of all others before it."""
    last = len(sample) - 1
    far = _DEVIATIONS * math.sqrt(last * share * (1 - share)) + _DEVIATIONS
    low, high = math.floor(last * share - far), math.ceil(last * share + far)
    ordered = np.partition(sample, [max(low, 0), min(high, last)])
    return (
        ordered[low] if low >= 0 else np.float32(0),
        ordered[high] if high <= last else np.float32(np.inf),
    )


def _between(
    go_through: Pass, ranks: Sequence[int], brackets: Sequence[Bracket]
) -> list[float] | None:
    """As `select`; None if one is not in its bracket, or too many are."""

    def work(numbers: Magnitudes) -> list[tuple[npt.NDArray[np.int64], Magnitudes]]:
        found = []
        for low, high in brackets:
            chosen = numbers >= low
            below = len(numbers) - np.count_nonzero(chosen)
            chosen &= numbers <= high
            near = numbers[chosen]
            inside = near[(near > low) & (near < high)]
            lowest = np.count_nonzero(near == low)
            highest = len(near) - lowest - len(inside)
            found.append((np.array([below, lowest, highest]), inside))
        return found

    counts = np.zeros((len(ranks), 3), np.int64)
    held: list[list[Magnitudes]] = [[] for _ in ranks]
    holding = 0
    for found in go_through(work):
        for i, (counted, inside) in enumerate(found):
            counts[i] += counted
            held[i].append(inside)
            holding += len(inside)
        if holding > HELD_AT_MOST * len(ranks):
            return None
    selected = []
    for rank, (low, high), (below, lowest, highest), parts in zip(
        ranks, brackets, counts, held, strict=True
    ):
        inside = np.concatenate(parts)
        place = rank - below - lowest
        if rank < below or place >= len(inside) + highest:
            return None
        if place < 0:
            selected.append(float(low))
        elif place >= len(inside):
            selected.append(float(high))
        else:
            selected.append(float(np.partition(inside, place)[place]))
    return selected


def _counted(go_through: Pass, ranks: Sequence[int]) -> list[float]:
    def upper_bits(magnitudes: Magnitudes) -> npt.NDArray[np.uint16]:
        return (magnitudes.view(np.uint32) >> 16).astype(np.uint16)

    counts = _Counts(_UPPER)
    for values in go_through(upper_bits):
        counts.add(values)
    upper = _places(counts.total(), ranks)

    def lower_bits(magnitudes: Magnitudes) -> list[npt.NDArray[np.uint16]]:
        bits = magnitudes.view(np.uint32)
        begins = bits >> 16
        return [bits[begins == value].astype(np.uint16) for value, _ in upper]

    counts_of = [_Counts(_LOWER) for _ in ranks]
    for found in go_through(lower_bits):
        for counted, values in zip(counts_of, found, strict=True):
            counted.add(values)
    selected = [
        value << 16 | _places(counted.total(), [rank])[0][0]
        for counted, (value, rank) in zip(counts_of, upper, strict=True)
    ]
    return [float(number) for number in np.array(selected, np.uint32).view(np.float32)]


def _places(counts: npt.NDArray[np.int64], ranks: Sequence[int]) -> list[tuple[int, int]]:
    """For each rank the value that the number has, and its rank among those of that value."""
    until = np.cumsum(counts)
    values = np.searchsorted(until, ranks, side="right")
    return [
        (int(value), int(rank - (until[value] - counts[value])))
        for value, rank in zip(values, ranks, strict=True)
    ]
