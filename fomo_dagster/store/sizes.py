"""What files take on a disk. One that several hard links lead to takes its bytes once, and gives
them back with the last link."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """bytes: its size; of a symbolic link, its own. links: how many hard links lead to it."""

    device: int
    inode: int
    bytes: int
    links: int


def files_below(folder: Path) -> Counter[File]:
    """The files of a folder, or the one of this name, with how many links to each are there; none
    if there is no such folder."""
    found: Counter[File] = Counter()
    if folder.is_dir():
        for parent, _, names in os.walk(folder):  # passes over what others remove meanwhile
            found.update(_files(os.path.join(parent, name) for name in names))
    else:
        found.update(_files([os.fspath(folder)]))
    return found


def bytes_below(folder: Path) -> int:
    """What the files of a folder take; 0 if there is no such folder."""
    return bytes_of([files_below(folder)])


def bytes_of(found: Iterable[Counter[File]]) -> int:
    """What files take together."""
    return sum(file.bytes for file in {file for files in found for file in files})


def freed(found: Iterable[Counter[File]]) -> set[File]:
    """The files of which no link stays where all that were found go."""
    links = Counter[File]()
    for files in found:
        links.update(files)
    return {file for file, count in links.items() if count >= file.links}


def freed_by(found: Iterable[Counter[File]]) -> int:
    """The bytes that come free where all links that were found go."""
    return sum(file.bytes for file in freed(found))


def _files(paths: Iterable[str]) -> Iterable[File]:
    for path in paths:
        with suppress(OSError):
            status = os.lstat(path)
            yield File(status.st_dev, status.st_ino, status.st_size, status.st_nlink)
