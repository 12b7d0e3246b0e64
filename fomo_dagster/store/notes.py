"""Notes of what was cleaned, and when, so that plans can say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_WANTED = "wanted"


@dataclass(frozen=True)
class Note:
    """day: as 2026-11-30; None: it was not cleaned. is_wanted: whether it is to be made again,
    though nothing may be made from it."""

    day: str | None = None
    is_wanted: bool = False


def note_of(path: Path) -> Note:
    """The note in a file; an empty one if there is none."""
    try:
        day, *words = path.read_text(errors="replace").split()
    except (OSError, ValueError):
        return Note()
    return Note(day, _WANTED in words)


def write_note(path: Path) -> None:
    """Note that something is cleaned today."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(datetime.now(UTC).date().isoformat())


def want(path: Path) -> bool:
    """Have what was cleaned made again; whether there is such a note."""
    note = note_of(path)
    if note.day is not None:
        path.write_text(f"{note.day} {_WANTED}")
    return note.day is not None
