"""What low-rank adapters add to weights, computed to the same bits on every machine.

A stage that trains LoRA over its base is W₀ + scale · B A, so of a packed one only the adapters
need be kept, and what rounding left. A product of matrices is rounded otherwise by each library. So
A and B are first split into whole numbers of 20 bits, whose products and sums a float64 holds
exactly in any order (Ozaki et al. 2012, doi 10.1007/s11075-011-9478-1); what follows is rounded
number by number, which all machines do alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fomo_dagster.store.manifests import DamagedError

_BITS = 20
_MOST_RANKS = 2**11  # two products of 20 bits each, summed so often, stay below 2⁵³

Numbers: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LowRankPart:
    """Rows of a tensor that are changed by scale · B A. tensor: its name; row: the first of them.
    a: the name of A, (R, I), and b: that of B, (O, R), in the file of the adapters."""

    tensor: str
    row: int
    a: str
    b: str
    scale: float


@dataclass(frozen=True)
class _Split:
    """(high + low · 2⁻²⁰) · 2^exponent, of whole numbers."""

    high: Numbers
    low: Numbers
    exponent: int

    @classmethod
    def of(cls, matrix: Numbers) -> _Split:
        most = float(np.abs(matrix).max(initial=0.0))
        exponent = int(np.frexp(most)[1]) - _BITS if most else 0
        scaled = np.ldexp(matrix, -exponent)
        high = np.rint(scaled)
        return cls(high, np.rint(np.ldexp(scaled - high, _BITS)), exponent)


@dataclass(frozen=True)
class _Change:
    """scale · B A, of some rows."""

    row: int
    a: _Split
    b: _Split
    scale: float

    def rows(self, first: int, last: int) -> Numbers:
        """(last - first, I)."""
        high, low = self.b.high[first:last], self.b.low[first:last]
        small = high @ self.a.low + low @ self.a.high
        product = high @ self.a.high + np.ldexp(small, -_BITS)
        return np.ldexp(product, self.a.exponent + self.b.exponent) * self.scale


class LowRank:
    """The changes of a file's tensors. path: the safetensors file of the adapters. Raises
    `DamagedError` where it does not hold what the parts name."""

    def __init__(self, path: Path, parts: Sequence[LowRankPart]) -> None:
        self.path, self.parts = path, tuple(parts)

    @cached_property
    def _changes(self) -> Mapping[str, list[_Change]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        found: dict[str, list[_Change]] = {}
        try:
            tensors = load_file(self.path)
            for part in self.parts:
                a, b = (tensors[name].astype(np.float64) for name in (part.a, part.b))
                if not (np.isfinite(a).all() and np.isfinite(b).all()) or len(a) > _MOST_RANKS:
                    continue
                change = _Change(part.row, _Split.of(a), _Split.of(b), part.scale)
                found.setdefault(part.tensor, []).append(change)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise DamagedError(f"{self.path.name} does not hold its adapters ({error})") from error
        return found

    def changes(self, tensor: str, shape: Sequence[int]) -> bool:
        """Whether a tensor has such changes, each of which fits it."""
        own = self._changes.get(tensor, [])
        return len(shape) == 2 and any(own) and all(
            one.a.high.shape[1] == shape[1]
            and one.b.high.shape[1] == one.a.high.shape[0]
            and one.row + len(one.b.high) <= shape[0]
            for one in own
        )  # fmt: skip

    def added(
        self, tensor: str, columns: int, first: int, numbers: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Numbers (N,) in float32 of a tensor's base, from the element `first` on, with what is
        added to them; as they are where that is not finite."""
        top, bottom = first // columns, -(-(first + len(numbers)) // columns)
        delta = np.zeros((bottom - top, columns))
        for one in self._changes[tensor]:
            begin, end = max(top, one.row), min(bottom, one.row + len(one.b.high))
            if begin < end:
                delta[begin - top : end - top] += one.rows(begin - one.row, end - one.row)
        flat = delta.reshape(-1)[first - top * columns :][: len(numbers)]
        with np.errstate(all="ignore"):
            found = (numbers.astype(np.float64) + flat).astype(np.float32)
        bits = np.where(np.isfinite(found), found.view(np.uint32), numbers.view(np.uint32))
        return bits.view(np.float32)
