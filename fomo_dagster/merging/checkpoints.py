"""Several checkpoints of one architecture, read in pieces of their tensors.

The inputs are memory-mapped safetensors, and the output is written as it is made. Memory holds a
few pieces of every model's tensor, never a checkpoint or a whole tensor. Threads work on the pieces
while what came of others is written; the results come in the order of the pieces, so nothing
depends on how many threads there are. What is made of the pieces is the technique's business.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from threading import local
from types import TracebackType
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fomo_dagster.errors import DataError
from fomo_dagster.merging.beside import Beside
from fomo_dagster.merging.pieces import Array, Magnitudes, Piece, Plan, Rule, Whole, magnitudes
from fomo_dagster.merging.threads import Threads

Layout: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The kind (F32, I64, …) of each tensor as the output holds it, and its shape."""
Tensors: TypeAlias = dict[int, npt.NDArray[Any]]
T = TypeVar("T")

NUMBERS_AT_ONCE = 2**19
"""Numbers of all models together that a thread holds: 4 MiB of float64, as more leaves the caches,
and of fewer threads wait for each other."""
NUMBERS_ADDED_UP = 2**17
"""Those in one piece of `over_pieces`. The last digits of what is added up over pieces depend on
it, and so does what is made of that: it stays as it is."""
NUMBERS_OF_ONE = 2**12
"""Numbers of one model in a piece, at least: fewer take longer to begin with than to read."""
_ALIGNMENT = 4  # pieces begin at multiples of this: seeded numbers come four at a time
_KEPT = 2**24
"""Bytes. Once a block as large was given back, glibc keeps smaller ones for the next array. Before,
it may map each anew, page by page."""
_FLOATING = ("F64", "F32", "F16", "BF16")
_BYTES = {"I64": 8, "F32": 4, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NAMED_AT_MOST = 5


class Checkpoints:
    """The models of a merge, oldest first, and θ₀ if given; a context manager.

    labels: what errors call a file instead of its path. scratch: the folder of temporary files;
    None: the system's. beside: a file for each model, of tensors of other shapes. Raises
    `DataError` on entering for a file that cannot be read, and for tensors that are missing
    somewhere or differ in shape or kind; while reading for values that are not finite.
    """

    def __init__(
        self,
        models: Sequence[Path],
        base: Path | None = None,
        labels: Mapping[Path, str] | None = None,
        scratch: Path | None = None,
        beside: Sequence[Path] = (),
    ) -> None:
        self.count = len(models)
        self.notes: dict[str, str] = {}
        """What the merged file says in its header for merges to come; a plan writes it."""
        self._scratch = scratch
        self._paths = [*models, *([base] if base is not None else [])]
        self._paths_beside = beside
        self._has_base = base is not None
        self._labels = labels or {}
        self._exits = ExitStack()
        self._files: list[Any] = []
        self.beside = Beside((), ())
        self.layout: Layout = {}
        self._own = local()

    def __enter__(self) -> Checkpoints:
        with ExitStack() as opening:
            self._files = [opening.enter_context(self._opened(path)) for path in self._paths]
            beside = [opening.enter_context(self._opened(path)) for path in self._paths_beside]
            self.beside = Beside(beside, [self._label(path) for path in self._paths_beside])
            self.layout = self._layout(0)
            for i in range(1, len(self._files)):
                self._check_same(i)
            np.empty(_KEPT, np.uint8)
            self.threads = opening.enter_context(Threads())
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

    def notes_of(self, model: int) -> Mapping[str, str]:
        """What the header of a model's file says besides its tensors."""
        notes: Mapping[str, str] | None = self._files[model].metadata()
        return notes or {}

    def temporary_file(self) -> IO[bytes]:
        """An empty file without a name, which is gone with this context or the process."""
        return self._exits.enter_context(tempfile.TemporaryFile(dir=self._scratch))

    def whole(self, name: str, model: int, start: int, stop: int) -> Piece:
        """The numbers between of one model, and of θ₀, however many. They lie in the memory of the
        thread, whose next piece takes it."""
        (piece,) = self._read(name, self._tensors(name, model), start, stop, stop - start)
        return piece

    def over_pieces(
        self, name: str, work: Callable[[Piece], T], model: int | None = None
    ) -> Iterator[T]:
        """The results of `work` for each piece of the tensor, in order. They share no memory with
        the piece, which the next ones take.

        model: the place of the only model to include; none: all.
        """
        tensors = self._tensors(name, model)
        width = self._width(name, len(tensors), min(NUMBERS_ADDED_UP, NUMBERS_AT_ONCE))
        together = min(
            NUMBERS_AT_ONCE // (width * len(tensors)),
            self.size(name) // (width * 2 * self.threads.count),
        )

        def read_and_work(start: int, stop: int) -> list[T]:
            return [work(piece) for piece in self._read(name, tensors, start, stop, width)]

        tasks = self._tasks(name, width * max(1, together), read_and_work)
        return chain.from_iterable(self.threads.in_order(tasks))

    def tasks(
        self, name: str, work: Callable[[Piece], T], rows: bool = False
    ) -> Iterator[Callable[[], T]]:
        """What gives the results of `work` for each piece of the tensor; fewer and larger ones than
        those of `over_pieces`.

        rows: whether pieces consist of whole rows, however long.
        """
        tensors = self._tensors(name, None)
        width = self._width(name, len(tensors), NUMBERS_AT_ONCE, rows)

        def read_and_work(start: int, stop: int) -> T:
            (piece,) = self._read(name, tensors, start, stop, width)
            return work(piece)

        return self._tasks(name, width, read_and_work)

    def over_magnitudes(
        self, name: str, model: int, work: Callable[[Magnitudes], T]
    ) -> Iterator[T]:
        """The results of `work` for |τ| of one model in single precision, in pieces, in order.

        What is not finite may be among them: whoever goes through the pieces is told.
        """
        tensors = self._tensors(name, model)

        def read_and_work(start: int, stop: int) -> T:
            return work(self._magnitudes(name, tensors, start, stop))

        width = self._width(name, len(tensors), NUMBERS_AT_ONCE)
        return self.threads.in_order(self._tasks(name, width, read_and_work))

    def sampled(self, name: str, step: int, model: int | None = None) -> Iterator[Piece]:
        """Every number of the tensor that many others apart, as if they were all. As with
        `over_pieces`, the next piece takes the memory of this one."""
        tensors = {i: tensor[::step] for i, tensor in self._tensors(name, model).items()}
        count = len(range(0, self.size(name), step))
        width = self._width(name, len(tensors), NUMBERS_AT_ONCE)
        for start in range(0, count, width):
            yield from self._read(name, tensors, start, min(start + width, count), width)

    def _width(self, name: str, files: int, numbers: int, rows: bool = False) -> int:
        """Of a piece with at most that many numbers of all files, where it does not take more."""
        unit = math.lcm(_ALIGNMENT, self.row(name)) if rows and self.size(name) else _ALIGNMENT
        return max(NUMBERS_OF_ONE, numbers // files) // unit * unit or unit

    def _tasks(
        self, name: str, width: int, read_and_work: Callable[[int, int], T]
    ) -> Iterator[Callable[[], T]]:
        size = self.size(name)
        for start in range(0, size, width):
            yield partial(read_and_work, start, min(start + width, size))

    def integers(self, name: str) -> Tensor:
        """A tensor of integers (a counter), which must be the same in all files.

        Raises `DataError` if it is not: integers have no merge.
        """
        tensors: list[Tensor] = [file.get_tensor(name) for file in self._files]
        first, *others = tensors
        for i, other in enumerate(others, 1):
            if not torch.equal(first, other):
                raise DataError(
                    f"{name} holds integers that differ between {self.label(0)} and "
                    f"{self.label(i)}, and integers have no merge: merge files of one training"
                )
        return first

    def _tensors(self, name: str, model: int | None) -> Tensors:
        """By file, of all models or one, and of θ₀; flat, as they are in the files: a piece is read
        when it is converted. bfloat16, which NumPy lacks, as its bits."""
        of_models = range(self.count) if model is None else (model,)
        tensors = {}
        for i in (*of_models, *range(self.count, len(self._files))):
            tensor: Tensor = self._files[i].get_tensor(name).reshape(-1)
            if tensor.dtype == torch.bfloat16:
                tensors[i] = tensor.view(torch.int16).numpy().view(np.uint16)
            else:
                tensors[i] = tensor.numpy()
        return tensors

    def _magnitudes(self, name: str, tensors: Tensors, start: int, stop: int) -> Magnitudes:
        if any(tensor.dtype != np.float32 for tensor in tensors.values()):
            piece = next(self._read(name, tensors, start, stop, stop - start))
            return magnitudes(piece.into_vectors()[0])
        # The difference of two numbers in single precision is the same rounded once, or to double
        # precision and from there: that has more than twice the digits.
        model, base = (tensor[start:stop] for tensor in tensors.values())
        with np.errstate(invalid="ignore", over="ignore"):
            found: Magnitudes = model - base
        return np.abs(found, out=found)

    def _read(
        self, name: str, tensors: Tensors, start: int, stop: int, width: int
    ) -> Iterator[Piece]:
        """The pieces between, `width` long but for the last. They lie in this thread's own memory:
        new memory for each would take as long as to read it."""
        size = len(tensors) * (stop - start)
        if getattr(self._own, "numbers", np.empty(0)).size < size:
            self._own.numbers = np.empty(size)
        whole = (stop - start) // width
        end = start + whole * width
        held = self._own.numbers[:size]
        pieces = held[: len(tensors) * whole * width].reshape(whole, len(tensors), width)
        last = held[pieces.size :].reshape(len(tensors), stop - end)
        for i, tensor in enumerate(tensors.values()):
            pieces[:, i] = _as_numbers(tensor[start:end]).reshape(whole, width)
            last[i] = _as_numbers(tensor[end:stop])
        with np.errstate(invalid="ignore", over="ignore"):
            suspicious = not np.isfinite(np.add.reduce(held))
        for begin, numbers in zip(
            range(start, stop, width), [*pieces, last][: whole + (end < stop)], strict=True
        ):
            if suspicious:
                self._check_finite(name, tensors, numbers)
            if self._has_base:
                yield Piece(name, begin, numbers[:-1], numbers[-1])
            else:
                yield Piece(name, begin, numbers, None)

    def _check_finite(self, name: str, tensors: Tensors, numbers: Array) -> None:
        for i, row in zip(tensors, numbers, strict=True):
            if not np.isfinite(row).all():
                raise DataError(
                    f"{name} of {self.label(i)} is not finite, which a merge would spread: "
                    "leave that file out, or train it again"
                )

    def label(self, i: int) -> str:
        """What errors call a model, or θ₀."""
        return self._label(self._paths[i])

    def _label(self, path: Path) -> str:
        return self._labels.get(path, str(path))

    def _opened(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{self._label(path)} cannot be read as safetensors: {error}"
            ) from error

    def _layout(self, i: int) -> Layout:
        layout = {}
        for name in self._files[i].keys():  # noqa: SIM118 (the file is no mapping)
            piece = self._files[i].get_slice(name)
            kind = "F32" if piece.get_dtype() in _FLOATING else piece.get_dtype()
            if kind not in _BYTES:
                raise DataError(
                    f"{name} of {self.label(i)} holds {kind}, which has no merge: save it as one "
                    f"of {', '.join(sorted(_FLOATING))}"
                )
            layout[name] = (kind, tuple(piece.get_shape()))
        if not layout:
            raise DataError(f"{self.label(i)} holds no tensors: save its weights again")
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
                    f"{self.label(i)} does not go with {self.label(0)}: it {what} {listed}{rest};"
                    " merge files of one architecture"
                )


def _as_numbers(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As they are in the file; of bfloat16, the upper half of float32, from its bits."""
    if tensor.dtype != np.uint16:
        return tensor
    return (tensor.astype(np.uint32) << 16).view(np.float32)


def _shown(tensor: tuple[str, tuple[int, ...]]) -> str:
    kind, shape = tensor
    return f"{kind} {list(shape)}"


def write_merged(checkpoints: Checkpoints, plan: Plan, output: Path, by_rows: bool = False) -> None:
    """Write the checkpoint whose tensors are what `plan(name)` makes, as fp32.

    `plan` is asked once for each tensor; by_rows: whether pieces shall have whole rows. Integers
    are passed on. The bytes are those that `safetensors.torch.save_file` writes for the same
    tensors, with the notes as metadata.

    Raises `DataError` for numbers that are not finite after merging.
    """
    layout = checkpoints.layout
    names = sorted(layout, key=lambda name: (list(_BYTES).index(layout[name][0]), name))

    def tasks() -> Iterator[Callable[[], npt.NDArray[Any]]]:
        for name in names:
            if layout[name][0] != "F32":
                integers = checkpoints.integers(name).contiguous().reshape(-1)
                yield partial(np.asarray, integers.view(torch.uint8).numpy())
            elif checkpoints.size(name):
                rule = plan(name)
                if isinstance(rule, Whole):
                    yield partial(_made_whole, name, rule)
                else:
                    yield from checkpoints.tasks(name, _by_pieces(rule), rows=by_rows)

    with output.open("wb") as stream:
        stream.write(_header({name: layout[name] for name in names}, checkpoints.notes))
        for merged in checkpoints.threads.in_order(tasks()):
            stream.write(merged.data)


def _by_pieces(rule: Rule) -> Callable[[Piece], npt.NDArray[np.float32]]:
    return lambda piece: _single_precision(piece.name, rule(piece))


def _made_whole(name: str, whole: Whole) -> npt.NDArray[np.float32]:
    return _single_precision(name, whole.make())


def _single_precision(name: str, merged: Array) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # it is named below
        numbers = merged.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(
            f"{name} is not finite after merging, though it was in each of the inputs: take "
            "smaller coefficients"
        )
    return numbers


def _header(layout: Layout, notes: Mapping[str, str]) -> bytes:
    """The beginning of a safetensors file: its length (8 bytes, little endian), then JSON that says
    where each tensor lies, filled up with spaces to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": notes} if notes else {}
    start = 0
    for name, (kind, shape) in layout.items():
        end = start + math.prod(shape) * _BYTES[kind]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
