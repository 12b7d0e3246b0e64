"""What is wrong with a path that a person gave."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from fomo_dagster.errors import DataError, InputError

Kind = Literal["file", "folder", "file or folder"]


def problem_of(path: Path, kind: Kind) -> str | None:
    """A sentence if `path` is not of the expected kind, or cannot be reached; else None."""
    path = Path(os.path.normpath(path))
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no {kind} {path}{_nearest_to(path)}"
    except OSError as error:
        return said_of(error, path)
    if kind == "folder" and not path.is_dir():
        return f"{path} is a file, and a folder was expected"
    if kind == "file" and not path.is_file():
        return f"{path} is no file, and a file was expected"
    return None


@contextmanager
def named(what: str) -> Iterator[None]:
    """Prefix errors raised within by `what`, including errors of the machine."""
    try:
        yield
    except (InputError, DataError) as error:
        raise type(error)(f"{what}: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise
        raise DataError(f"{what}: {said_of(error)}") from error


def said_of(error: OSError, path: Path | str | None = None) -> str:
    """An error of the machine as a sentence that names the file, if it has one."""
    place, reason = error.filename or path, error.strerror or str(error) or type(error).__name__
    said = reason if place is None else f"{place}: {reason}"
    if isinstance(error, PermissionError):
        said += ": see that this user may read it, and the folders above it"
    return said


def _nearest_to(path: Path) -> str:
    """What is there in place of the first part of `path` that is not."""
    name, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        name, parent = parent.name, parent.parent
    try:
        close = difflib.get_close_matches(name, os.listdir(parent), n=2)
    except OSError:
        return ""
    if close:
        return f": {parent} has no {name!r}; did you mean {' or '.join(map(repr, close))}?"
    return "" if parent == path.parent else f": {parent} has no {name!r}"
