"""The headers of a tar's members, front to back, whatever the file holds. Nothing is extracted.

A header is not trusted. Readers check sizes before they read, and a header that needs more memory
than any real one counts as damage.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LARGEST_HEADER = 1 << 20  # bytes of a long name or of extended attributes
LONG_NUMBER = re.compile(rb"\d{300}")
COMPRESSED = {  # how such files begin, and what undoes it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


class _Bounded:
    """A file of which no more than a header is read at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header declares {size:,} bytes of its own")
        data = self._file.read(size)
        # No name has as many in a row, and tarfile's pattern takes quadratic time for them.
        if LONG_NUMBER.search(data):
            raise tarfile.ReadError("a header holds a number of hundreds of digits")
        return data


def headers(file: IO[bytes], *, ends_in_mark: bool = False) -> Iterator[tarfile.TarInfo]:
    """The header of each member. Raises `tarfile.ReadError` where the tar is damaged from there on.

    ends_in_mark: a tar without the zeros that end one, or with more behind them, is damaged, too.
    """
    last = -1
    try:
        with tarfile.open(
            fileobj=_Bounded(file),  # type: ignore[call-overload]
            mode="r:",
            encoding="utf-8",
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # else it keeps all that it saw
                if member.size < 0 or tar.offset <= last:
                    raise tarfile.ReadError(f"no size at byte {member.offset}")
                last = tar.offset
                yield member
            # What is no header, tarfile takes for the end.
            file.seek(tar.offset)
            rest = file.read(tarfile.BLOCKSIZE)
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
            if ends_in_mark and not rest:
                raise tarfile.ReadError(f"no end mark at byte {tar.offset}")
            if ends_in_mark and file.read(LARGEST_HEADER).strip(b"\0"):
                raise tarfile.ReadError(
                    f"more follows its end mark at byte {tar.offset}, as where tars were joined by "
                    "`cat` (`tar -Af` joins them)"
                )
    except tarfile.ReadError:
        raise
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # What tarfile makes of numbers, maps and chains of headers that mean harm.
        raise tarfile.ReadError(f"{type(error).__name__}: {error}") from error


def undone_by(path: Path) -> str | None:
    """The tool that decompresses the file; None if it is not compressed."""
    with path.open("rb") as file:
        start = file.read(len(max(COMPRESSED, key=len)))
    return next((tool for magic, tool in COMPRESSED.items() if start.startswith(magic)), None)
