"""The files that were written of a release, for whoever serves or copies them.

Only the records and the store are read, so a server may look as often as it likes. What wrote them
is the asset `releases/<name>/files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.home import Home
from fomo_dagster.releases.records import (
    Candidate,
    History,
    OvertakenError,
    Record,
    ReleaseLog,
)

FILES = "files"  # the folder of the forms in their artifact


@dataclass(frozen=True, kw_only=True)
class ReleasedFiles:
    """The files of a release.

    forms: their names. folder: what `fomo export` would have written, with a folder for each form
    and `README.md` for the card; read-only, and there as long as this process lives.
    """

    name: str
    number: int
    candidate: Candidate
    forms: tuple[str, ...]
    folder: Path


def released_files(home: Home, name: str, number: int | None = None) -> ReleasedFiles | None:
    """The files of a release, by default of the one that is live; None where nothing is live, or
    its files are not there (yet).

    Files that only a shared store has are fetched. Cleaning leaves what was returned to this
    process alone until it ends. Raises `InputError` for a number that was never given, `StoreError`
    for a damaged record.
    """
    history = ReleaseLog(home, name).read()
    if number is None:
        number = history.live
    if number is None:
        return None
    candidate = history.release(number).candidate
    record = files_record(history, number)
    if candidate is None or record is None or record.files is None:
        return None
    artifact = home.store.open(*record.files)
    if artifact is None:
        return None
    return ReleasedFiles(
        name=name, number=number, candidate=candidate, forms=record.forms,
        folder=artifact.folder / FILES,
    )  # fmt: skip


def files_record(history: History, number: int) -> Record | None:
    """The last record of files of a release; None if none were written."""
    found = (r for r in reversed(history.records) if (r.kind, r.release) == ("files", number))
    return next(found, None)


def record_files(
    log: ReleaseLog, number: int, files: tuple[str, str], forms: Sequence[str]
) -> Record | None:
    """Record where the files of a release are; None where that is recorded already. files: their
    kind and digest in the store."""
    while True:
        history = log.read()
        there = files_record(history, number)
        if there is not None and there.files == files:
            return None
        try:
            return log.append(history, "files", release=number, files=files, forms=tuple(forms))
        except OvertakenError:  # by whatever: it decides nothing
            continue
