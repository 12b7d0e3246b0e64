"""Several checkpoints of one architecture, read in pieces of their tensors.

The inputs are memory-mapped safetensors, and the output is written as it is made. Memory holds a
piece of every model's tensor and the one tensor that is being merged, never a checkpoint. Threads
work on the pieces; the results come in the order of the pieces, so nothing depends on how many
threads there are. What is made of the pieces is the technique's business.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fomo_dagster.errors import DataError
from fomo_dagster.merging.pieces import Array, Piece, Rule

Layout: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The kind (F32, I64, …) of each tensor as the output holds it, and its shape."""
T = TypeVar("T")

NUMBERS_AT_ONCE = 2**17
"""Numbers of all models together in one piece: 1 MiB of float64, which a cache holds."""
NUMBERS_OF_ONE = 2**12
"""Numbers of one model in a piece, at least: fewer take longer to begin with than to read."""
_ALIGNMENT = 4  # pieces begin at multiples of this: seeded numbers come four at a time
_THREADS = min(4, os.cpu_count() or 1)
_FLOATING = ("F64", "F32", "F16", "BF16")
_BYTES = {"I64": 8, "F32": 4, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NAMED_AT_MOST = 5


class Checkpoints:
    """The models of a merge, oldest first, and θ₀ if given; a context manager.

    labels: what errors call a file instead of its path. Raises `DataError` on entering for a file
    that cannot be read, and for tensors that are missing somewhere or differ in shape or kind;
    while reading for values that are not finite.
    """

    def __init__(
        self,
        models: Sequence[Path],
        base: Path | None = None,
        labels: Mapping[Path, str] | None = None,
    ) -> None:
        self.count = len(models)
        self._paths = [*models, *([base] if base is not None else [])]
        self._has_base = base is not None
        self._labels = labels or {}
        self._exits = ExitStack()
        self._files: list[Any] = []
        self.layout: Layout = {}

    def __enter__(self) -> Checkpoints:
        with ExitStack() as opening:
            self._files = [opening.enter_context(self._opened(path)) for path in self._paths]
            self.layout = self._layout(0)
            for i in range(1, len(self._files)):
                self._check_same(i)
            self._threads = opening.enter_context(ThreadPoolExecutor(_THREADS))
            self._exits = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._exits.close()

    @property
    def names(self) -> list[str]:
        """The tensors to merge: those of real numbers."""
        return [name for name, (kind, _) in self.layout.items() if kind == "F32"]

    def size(self, name: str) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.layout[name][1])

    def row(self, name: str) -> int:
        """How many numbers a row has: all that go into one output of a matrix or a convolution. A
        vector is one row."""
        shape = self.layout[name][1]
        return math.prod(shape[1:] if len(shape) > 1 else shape)

    def over_pieces(
        self, name: str, work: Callable[[Piece], T], model: int | None = None, rows: bool = False
    ) -> Iterator[T]:
        """The results of `work` for each piece of the tensor, in order.

        model: the place of the only model to include; none: all. rows: whether pieces consist of
        whole rows, however long.
        """
        size = self.size(name)
        of_models = range(self.count) if model is None else (model,)
        chosen = [*of_models, *range(self.count, len(self._files))]
        unit = math.lcm(_ALIGNMENT, self.row(name)) if rows and size else _ALIGNMENT
        width = max(NUMBERS_OF_ONE, NUMBERS_AT_ONCE // len(chosen)) // unit * unit or unit
        starts = range(0, size, width)
        # Tensors that share memory with the file: a piece of one is read when it is converted.
        tensors = {i: self._files[i].get_tensor(name).reshape(-1) for i in chosen}

        def read_and_work(start: int) -> T:
            return work(self._piece(name, tensors, start, min(start + width, size)))

        return (
            self._threads.map(read_and_work, starts) if size > width else map(read_and_work, starts)
        )

    def integers(self, name: str) -> Tensor:
        """A tensor of integers (a counter), which must be the same in all files.

        Raises `DataError` if it is not: integers have no merge.
        """
        tensors: list[Tensor] = [file.get_tensor(name) for file in self._files]
        first, *others = tensors
        for i, other in enumerate(others, 1):
            if not torch.equal(first, other):
                raise DataError(
                    f"{name} holds integers that differ between {self._label(0)} and "
                    f"{self._label(i)}, and integers have no merge: merge files of one training"
                )
        return first

    def _piece(self, name: str, tensors: Mapping[int, Tensor], start: int, stop: int) -> Piece:
        numbers = np.empty((len(tensors), stop - start))
        for row, tensor in zip(numbers, tensors.values(), strict=True):
            self._read(tensor, start, stop, row)
        with np.errstate(invalid="ignore", over="ignore"):
            suspicious = not np.isfinite(numbers.sum())
        if suspicious:
            for i, row in zip(tensors, numbers, strict=True):
                if not np.isfinite(row).all():
                    raise DataError(
                        f"{name} of {self._label(i)} is not finite, which a merge would spread: "
                        "leave that file out, or train it again"
                    )
        if not self._has_base:
            return Piece(name, start, numbers, None)
        return Piece(name, start, numbers[:-1], numbers[-1])

    @staticmethod
    def _read(tensor: Tensor, start: int, stop: int, into: Array) -> None:
        torch.from_numpy(into).copy_(tensor[start:stop])

    def _label(self, i: int) -> str:
        return self._labels.get(self._paths[i], str(self._paths[i]))

    def _opened(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            label = self._labels.get(path, path)
            raise DataError(f"{label} cannot be read as safetensors: {error}") from error

    def _layout(self, i: int) -> Layout:
        layout = {}
        for name in self._files[i].keys():  # noqa: SIM118 (the file is no mapping)
            piece = self._files[i].get_slice(name)
            kind = "F32" if piece.get_dtype() in _FLOATING else piece.get_dtype()
            if kind not in _BYTES:
                raise DataError(
                    f"{name} of {self._label(i)} holds {kind}, which has no merge: save it as one "
                    f"of {', '.join(sorted(_FLOATING))}"
                )
            layout[name] = (kind, tuple(piece.get_shape()))
        if not layout:
            raise DataError(f"{self._label(i)} holds no tensors: save its weights again")
        return layout

    def _check_same(self, i: int) -> None:
        expected, found = self.layout, self._layout(i)
        different = {
            f"{name} ({_shown(found[name])} instead of {_shown(expected[name])})"
            for name in expected.keys() & found.keys()
            if expected[name] != found[name]
        }
        for what, names in (
            ("lacks", expected.keys() - found.keys()),
            ("also has", found.keys() - expected.keys()),
            ("has another shape or kind of", different),
        ):
            if names:
                listed = ", ".join(sorted(names)[:_NAMED_AT_MOST])
                rest = f" and {len(names) - _NAMED_AT_MOST} more" * (len(names) > _NAMED_AT_MOST)
                raise DataError(
                    f"{self._label(i)} does not go with {self._label(0)}: it {what} {listed}{rest};"
                    " merge files of one architecture"
                )


def _shown(tensor: tuple[str, tuple[int, ...]]) -> str:
    kind, shape = tensor
    return f"{kind} {list(shape)}"


def write_merged(
    checkpoints: Checkpoints, rule: Callable[[str], Rule], output: Path, by_rows: bool = False
) -> None:
    """Write the checkpoint whose tensors are, piece by piece, what `rule(name)` makes, as fp32.

    `rule` is asked once for each tensor; by_rows: whether its pieces shall have whole rows.
    Integers are passed on. The bytes are those that `safetensors.torch.save_file` writes for the
    same tensors.

    Raises `DataError` for numbers that are not finite after merging.
    """
    layout = checkpoints.layout
    names = sorted(layout, key=lambda name: (list(_BYTES).index(layout[name][0]), name))
    with output.open("wb") as stream:
        stream.write(_header({name: layout[name] for name in names}))
        for name in names:
            if layout[name][0] != "F32":
                integers = checkpoints.integers(name).contiguous().reshape(-1)
                stream.write(integers.view(torch.uint8).numpy().data)
            elif checkpoints.size(name):
                work = _single_precision(rule(name))
                for merged in checkpoints.over_pieces(name, work, rows=by_rows):
                    stream.write(merged.data)


def _single_precision(rule: Rule) -> Callable[[Piece], np.ndarray[Any, np.dtype[np.float32]]]:
    def merged(piece: Piece) -> np.ndarray[Any, np.dtype[np.float32]]:
        with np.errstate(over="ignore"):  # it is named below
            numbers = rule(piece).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise DataError(
                f"{piece.name} is not finite after merging, though it was in each of the inputs: "
                "take smaller coefficients"
            )
        return numbers

    return merged


def _header(layout: Layout) -> bytes:
    """The beginning of a safetensors file: its length (8 bytes, little endian), then JSON that says
    where each tensor lies, filled up with spaces to a multiple of 8."""
    entries = {}
    start = 0
    for name, (kind, shape) in layout.items():
        end = start + math.prod(shape) * _BYTES[kind]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
