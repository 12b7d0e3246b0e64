"""A file of weights as what differs from another one, compressed without loss.

The numbers of both files are read as whole numbers of their width, and subtracted modulo 2^bits.
Numbers that are near each other give small differences, positive or negative, so the sign is moved
to the lowest bit: 0, -1, 1, -2, … become 0, 1, 2, 3, …. Of each block, the first bytes of all
numbers, the second ones and so on (byte planes) are compressed by zstd, each by itself: the upper
planes are nearly all zeros, and the lowest is noise that zstd stores as it is. Subtracting takes 8
to 18 % fewer bytes than the exclusive or, in which a carry changes many bits.

Tensors go together by name, type and shape. Those without a counterpart, and everything that is no
tensor, are compressed as they are. Any bits come back: infinities, NaNs, and files that end in more
than their header says. What low-rank adapters add (`low_rank`) is added to the other file's numbers
first, so that of those only what rounding left differs.

The file: `MAGIC`, the length of the index (8 bytes, little endian), the index (`sealed`: the
ranges, and what adapters add), and for each plane of each block its length (4 bytes) and its bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa

from fomo_dagster.store.low_rank import LowRank, LowRankPart
from fomo_dagster.store.manifests import MOST_BYTES, DamagedError
from fomo_dagster.store.sealed import sealed, unsealed

MAGIC = b"FOMOPK1\n"
BLOCK_BYTES = 4 * 2**20  # of the file; some six times as much is in memory at once
_LEVEL = 1  # 3 and 6 took no byte off: the planes are zeros or noise
_WIDTHS = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "C64": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
}  # fmt: skip
_LENGTH = struct.Struct("<I")
_LONG = struct.Struct("<Q")

Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"


@dataclass(frozen=True)
class Range:
    """Bytes in a row. width: of a number. base: where their counterparts begin in the other file;
    None: they have none. tensor: that of adapters, whose rows have `columns` numbers, and of which
    it begins at the number `first`; empty: nothing is added."""

    bytes: int
    width: int
    base: int | None
    tensor: str = ""
    columns: int = 0
    first: int = 0


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def place(self) -> tuple[int, int]:
        """Its order in the file: one without numbers comes before what begins where it does."""
        return self.begin, self.end


def write_differences(
    path: Path, base: Path, output: Path, low_rank: LowRank | None = None
) -> None:
    """Write what the safetensors file `path` differs in from `base`, and from what adapters add to
    it. Raises `DamagedError` if one of them is no such file."""
    ranges = ranges_of(path, base, low_rank)
    data: dict[str, Any] = {"ranges": [_as_data(one) for one in ranges]}
    if low_rank is not None:
        parts = [list(astuple(part)) for part in low_rank.parts]
        data["low_rank"] = {"file": low_rank.path.name, "parts": parts}
    index = sealed(data)
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    with path.open("rb") as file, base.open("rb") as other, output.open("wb") as written:
        written.write(MAGIC + _LONG.pack(len(index)) + index)
        for block in _blocks(ranges):
            numbers = _numbers(file, block)
            if block.base is not None:
                numbers = _with_sign_last(numbers - _counterparts(other, block, low_rank))
            planes = numbers.view(np.uint8).reshape(-1, block.width)
            for place in range(block.width):
                plane = codec.compress(np.ascontiguousarray(planes[:, place]), asbytes=True)
                written.write(_LENGTH.pack(len(plane)))
                written.write(plane)


def restored(differences: Path, base: Path, folder: Path) -> Iterator[bytes]:
    """The bytes of the file that `differences` was written of, block by block. folder: where the
    adapters' file is, if there was one.

    Raises `DamagedError` where it was altered or ends early; another `base` gives other bytes.
    """
    codec = pa.Codec("zstd")
    with differences.open("rb") as file, base.open("rb") as other:
        ranges, low_rank = _index(file, folder)
        for block in _blocks(ranges):
            planes = np.empty((block.bytes // block.width, block.width), np.uint8)
            for place in range(block.width):
                planes[:, place] = _plane(file, len(planes), codec)
            numbers = planes.reshape(-1).view(f"<u{block.width}")
            if block.base is not None:
                numbers = _with_sign_first(numbers) + _counterparts(other, block, low_rank)
            yield numbers.tobytes()
        if file.read(1):
            raise DamagedError("it goes on after its last block")


def ranges_of(path: Path, base: Path, low_rank: LowRank | None = None) -> list[Range]:
    """The ranges of a safetensors file, which are all its bytes in their order."""
    tensors, counterparts = _tensors(path), _tensors(base)
    ranges: list[Range] = []
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].place):
        if tensor.begin < place:
            raise DamagedError(f"{path.name} has tensors that overlap: {name}")
        _add(ranges, Range(tensor.begin - place, 1, None))
        width, length = _WIDTHS.get(tensor.dtype, 1), tensor.end - tensor.begin
        width = 1 if length % width else width
        other = counterparts.get(name)
        is_like = other is not None and (other.dtype, other.shape, other.end - other.begin) == (
            tensor.dtype, tensor.shape, length
        )  # fmt: skip
        begin = other.begin if other is not None and is_like else None
        adds = low_rank is not None and begin is not None and tensor.dtype == "F32"
        if adds and low_rank is not None and low_rank.changes(name, tensor.shape):
            ranges.append(Range(length, width, begin, name, tensor.shape[1]))
        else:
            _add(ranges, Range(length, width, begin))
        place = tensor.end
    _add(ranges, Range(path.stat().st_size - place, 1, None))
    return ranges


def _add(ranges: list[Range], new: Range) -> None:
    """Add a range, as one with the last where it goes on in both files: biases are small."""
    if not new.bytes:
        return
    last = ranges[-1] if ranges else None
    after = None if last is None or last.base is None else last.base + last.bytes
    is_plain = last is not None and not last.tensor
    if last is not None and is_plain and (last.width, after) == (new.width, new.base):
        ranges[-1] = Range(last.bytes + new.bytes, last.width, last.base)
    else:
        ranges.append(new)


def _blocks(ranges: Sequence[Range]) -> Iterator[Range]:
    for one in ranges:
        for begin in range(0, one.bytes, BLOCK_BYTES):
            base = None if one.base is None else one.base + begin
            length = min(BLOCK_BYTES, one.bytes - begin)
            yield replace(one, bytes=length, base=base, first=begin // one.width)


def _as_data(one: Range) -> list[Any]:
    added = [one.tensor, one.columns] if one.tensor else []
    return [one.bytes, one.width, one.base, *added]


def _counterparts(other: BinaryIO, block: Range, low_rank: LowRank | None) -> np.ndarray[Any, Any]:
    """The numbers of the other file that a block is held against."""
    other.seek(block.base or 0)
    numbers = _numbers(other, block)
    if not block.tensor:
        return numbers
    assert low_rank is not None  # whoever reads an index checks that
    numbers = numbers.view("<f4")
    return low_rank.added(block.tensor, block.columns, block.first, numbers).view("<u4")


def _numbers(file: BinaryIO, block: Range) -> np.ndarray[Any, Any]:
    """The next numbers of a file, without a sign."""
    data = file.read(block.bytes)
    if len(data) != block.bytes:
        raise DamagedError(f"{Path(file.name).name} ends early")
    return np.frombuffer(data, f"<u{block.width}")


def _with_sign_last(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (numbers << 1) ^ -(numbers >> (8 * numbers.itemsize - 1))


def _with_sign_first(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (numbers >> 1) ^ -(numbers & 1)


def _plane(file: BinaryIO, length: int, codec: Any) -> Bytes:
    """The next plane, of so many bytes."""
    head = file.read(_LENGTH.size)
    data = file.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
    try:
        return np.frombuffer(codec.decompress(data, decompressed_size=length), np.uint8)
    except (OSError, ValueError) as error:  # which Arrow raises of bytes that are no frame
        raise DamagedError(f"a block of it cannot be read ({error})") from error


def _index(file: BinaryIO, folder: Path) -> tuple[list[Range], LowRank | None]:
    """What the file holds, whose blocks begin where this ends, and what adapters add."""
    head = file.read(len(MAGIC) + _LONG.size)
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + _LONG.size:
        raise DamagedError("it is no file of differences")
    (length,) = _LONG.unpack(head[len(MAGIC) :])
    try:
        if length > MOST_BYTES:
            raise ValueError(f"{length} bytes")
        said, low_rank = unsealed(file.read(length)), None
        ranges = [Range(*one) for one in said["ranges"]]
        if any(one.bytes % one.width or one.bytes < 0 for one in ranges):
            raise ValueError("parts of numbers")
        if "low_rank" in said:
            parts = [LowRankPart(*part) for part in said["low_rank"]["parts"]]
            low_rank = LowRank(folder / Path(said["low_rank"]["file"]).name, parts)
        elif any(one.tensor for one in ranges):
            raise ValueError("adapters are missing")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its index cannot be read ({error})") from error
    return ranges, low_rank


def _tensors(path: Path) -> dict[str, _Tensor]:
    """The tensors of a safetensors file, with where they are in it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_LONG.size)
        length = _LONG.unpack(head)[0] if len(head) == _LONG.size else size
        if length + _LONG.size > size:
            raise DamagedError(f"{path.name} is no safetensors file")
        header = file.read(length)
    start = _LONG.size + length
    try:
        found = {
            name: _Tensor(
                tensor["dtype"],
                tuple(tensor["shape"]),
                *(start + offset for offset in tensor["data_offsets"]),
            )
            for name, tensor in json.loads(header).items()
            if name != "__metadata__"
        }
        if any(not start <= one.begin <= one.end <= size for one in found.values()):
            raise ValueError("tensors outside of it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path.name} is no safetensors file ({error})") from error
    return found
