"""Whether a file is what its suffix says, by its beginning and its index alone.

Sizes and checksums prove that a file is what its writer left. A remote may have been written by
others, whose bytes agree with their own manifest and still cannot be read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path


def problem_of_format(path: Path) -> str | None:
    """What is wrong with an existing file, or None; None also for suffixes that are not known.

    Reads a Parquet file's footer, a safetensors file's header, and a tar's first header.
    """
    check = _CHECKS.get(path.suffix)
    why = check(path) if check is not None else None
    return None if why is None else f"{path.name} is no {path.suffix[1:]} file: {why}"


def _problem_of_parquet(path: Path) -> str | None:
    import polars as pl

    try:
        with path.open("rb") as file:  # by a path, Polars would take `[` and `*` for a pattern
            pl.read_parquet_schema(file)
    except pl.exceptions.PolarsError as error:
        return _first_line(error)
    return None


def _problem_of_safetensors(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return None
    except SafetensorError as error:
        return _first_line(error)


def _problem_of_tar(path: Path) -> str | None:
    try:
        with tarfile.open(path, "r:"):
            return None
    except tarfile.TarError as error:
        return _first_line(error)


_CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".parquet": _problem_of_parquet,
    ".safetensors": _problem_of_safetensors,
    ".tar": _problem_of_tar,
}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
