"""A growing stream: a folder in which each new subfolder or table of images is a stage.

What has arrived is what exists under its final name, in the order of the names. So name entries
such that later ones sort later, for example by date. An entry that sorts before others changes the
order of the stream, and the stages from there on are computed again. Entries with a hidden name, or
a name that ends in .partial, .part or .tmp, have not arrived: copy under such a name, then rename.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fomo_dagster.data.sources.rows import SUFFIXES as TABLES
from fomo_dagster.data.sources.splits import kind_of
from fomo_dagster.errors import InputError
from fomo_dagster.texts import composed, is_text

NOT_YET = (".partial", ".part", ".tmp")


def arrivals(folder: Path) -> list[Path]:
    """The subfolders and tables of a growing stream that have arrived, in the order of their names.

    Raises `InputError` if the folder is not there.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise InputError(
            f"the folder {folder} of a growing stream cannot be read: {error.strerror}; make it, "
            "empty if nothing has arrived yet"
        ) from error
    return [path for path in entries if _has_arrived(path)]


def passed_over(folder: Path) -> list[Path]:
    """The files there that are not tables, so they never arrive; empty without the folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [p for p in entries if not p.is_dir() and not _is_to_come(p) and not _has_arrived(p)]


def arrived_datasets(stream: str, folder: Path) -> dict[str, Path]:
    """Dataset name → folder or table, in the order of arrival.

    A dataset's name is the stream's and the entry's, without a table's suffix, with `_` for
    anything but a letter, digit or underscore. Raises `InputError` if two entries come to the same
    name, or an entry's name is not UTF-8.
    """
    datasets: dict[str, Path] = {}
    for path in arrivals(folder):
        if not is_text(path.name):
            raise InputError(f"{path.name!r} in {folder} has a name that is not UTF-8: rename it")
        entry = path.name if path.is_dir() else path.stem
        name = f"{stream}_{re.sub('[^A-Za-z0-9_]', '_', composed(entry))}"
        if name in datasets:
            raise InputError(
                f"{datasets[name].name!r} and {path.name!r} in {folder} would both be the dataset "
                f"{name!r}: rename one of them"
            )
        datasets[name] = path
    return datasets


def last_change(path: Path) -> int:
    """When something was last added to an arrival, replaced or removed: nanoseconds since 1970.

    For a subfolder, its own folders tell, down to those of the classes. So a look costs the same
    however many images there are, but an image that is overwritten in place is not noticed. Raises
    `OSError` if something vanishes meanwhile.
    """
    folders = [path]
    if path.is_dir():
        for folder in _folders(path):
            folders += [folder, *(_folders(folder) if kind_of(folder.name) else ())]
    return max(folder.stat().st_mtime_ns for folder in folders)


def _folders(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _is_to_come(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower().endswith(NOT_YET)


def _has_arrived(path: Path) -> bool:
    if _is_to_come(path):
        return False
    return path.is_dir() or (path.suffix.lower() in TABLES and path.is_file())
