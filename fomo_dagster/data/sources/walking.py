"""What lies below a folder, in order of names. What operating systems leave behind is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fomo_dagster.data.formats import has_image_suffix

LITTER = (  # in lower case: what systems leave behind
    "thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found",
)  # fmt: skip


def visible(folder: Path | str) -> list[os.DirEntry[str]]:
    """What there is to look at, in order of names: of what is hidden, files that end as images."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not _is_passed_over(e)), key=lambda e: e.name)


def _is_passed_over(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    if not name.startswith("."):
        return name in LITTER
    return name.startswith("._") or not has_image_suffix(name) or is_folder(entry)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, also through a link. A link to nothing, or in circles, is not."""
    # `DirEntry.is_dir` raises for some of the latter.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def identity_of(folder: Path | str) -> tuple[int, int]:
    """Device and inode, the same by whatever links a folder is reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def files_below(folder: Path | str, seen: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """All files below that are looked at, in order of names; a folder in `seen` (device and inode)
    is not entered again, so that links in circles end."""
    identity = identity_of(folder)
    if identity in seen:
        return
    seen.add(identity)
    for entry in visible(folder):
        if is_folder(entry):
            yield from files_below(entry.path, seen)
        else:
            yield entry


def path_below(folder: Path, path: str) -> str:
    """The part of `path` below `folder`, with slashes; `Path.relative_to` is ten times slower."""
    return path[len(str(folder).rstrip(os.sep)) + 1 :].replace(os.sep, "/")
