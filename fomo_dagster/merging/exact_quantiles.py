"""The numbers of given ranks among very many, exactly, without sorting or holding them.

Non-negative numbers in single precision are ordered like their 31 bits. A first pass counts how
often each value of the upper 15 bits occurs, which gives those of the number at every rank. A
second pass counts the lower 16 bits among the numbers with these upper bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Magnitudes: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")

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


def select(go_through: Pass, ranks: Sequence[int]) -> list[float]:
    """The numbers that have `rank` others before them when all are sorted (0: the smallest).

    The numbers are float32, finite and not negative (nor −0, but as abs gives them). Two passes;
    a few MiB are held for each rank.
    """

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
