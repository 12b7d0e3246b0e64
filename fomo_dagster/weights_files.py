"""Tells what a weights file is from its first bytes, since suffixes change and downloads fail."""

from __future__ import annotations

import codecs
import os
import zipfile
from pathlib import Path
from typing import Literal

from fomo_dagster.errors import DataError
from fomo_dagster.paths import problem_of

Format = Literal["safetensors", "pytorch"]

_NO_WEIGHTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not what it points to: run `git lfs pull`",
    b"<!doctype": "is a web page: the download went to a page about it",
    b"<html": "is a web page: the download went to a page about it",
    b"<!--": "is a web page: the download went to a page about it",
    b"{": "is JSON: a server's error, or an index of several files (then give their folder)",
    b"<?xml": "is an XML text, as servers send with errors: download it again",
    b"\x1f\x8b": "is packed by gzip: unpack it first",
    b"bzh": "is packed by bzip2: unpack it first",
    b"\xfd7zxz": "is packed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it first",
    b"\x93numpy": "is a NumPy array, without names of parameters",
    b"\x89hdf": "is an HDF5 file, which Keras writes: export its state_dict",
    b"gguf": "is a GGUF file, whose weights are quantised: take the file it was made from",
}
_HEADER_LIMIT = 100_000_000  # bytes of a safetensors header, as the library has it
_TAR_MAGIC = slice(257, 262)


def format_of(path: Path) -> Format:
    """The format of a file: safetensors, or one that `torch.save` writes or has written (a zip, a
    tar, a bare pickle).

    Raises `DataError` for a file that does not exist or cannot be read, and for any other format,
    with what it is instead.
    """
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder, and a file of weights was expected: name one in it")
    if (problem := problem_of(path, "file")) is not None:
        raise DataError(problem)
    try:
        with path.open("rb") as file:
            start = file.read(512)
        size = path.stat().st_size
        is_zip = start.startswith(b"PK\x03\x04")
        names = _names_in_zip(path) if is_zip else []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise DataError(f"{path} is empty: 0 bytes; download or save it again")
    # First, for the length of a header can be any bytes, as those that gzip begins with.
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 2 <= header <= _HEADER_LIMIT:
        if header + 8 > size:
            raise DataError(
                f"{path} ends early: its header alone has {header} bytes, and the file {size}; "
                "download it again"
            )
        return "safetensors"
    said = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for beginning, what in _NO_WEIGHTS.items():
        if said.startswith(beginning):
            raise DataError(f"{path} holds no weights: it {what}")
    if is_zip:
        if not any(name.endswith("data.pkl") for name in names):
            held = f"of {', '.join(names[:3])}" if names else "that ends early"
            raise DataError(
                f"{path} holds no weights: it is a zip archive {held}, not one of PyTorch; "
                "unpack it, or download it again"
            )
        return "pytorch"
    if start[0] == 0x80 or start[_TAR_MAGIC] == b"ustar":
        return "pytorch"
    raise DataError(
        f"{path} holds no weights: it begins with {start[:16]!r}, which neither safetensors nor "
        "PyTorch writes; download or save it again"
    )


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []
