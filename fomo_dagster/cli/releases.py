"""What `fomo releases` shows."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.home import Home
from fomo_dagster.releases.files import files_record, released_files
from fomo_dagster.releases.history import history_frame, minute
from fomo_dagster.releases.records import (
    History,
    ReleaseLog,
    names_elsewhere,
    names_of,
)
from fomo_dagster.store.files import new_folder


def log_of(home: Home, name: str) -> ReleaseLog:
    """The records of a release name. Raises `InputError` where there are none."""
    log = ReleaseLog(home, name)
    if not log.read().records:
        there = names_of(home)
        how = nearest(name, there) if there else "`fomo promote EXPERIMENT --first` is the first"
        raise InputError(f"nothing was released as {name!r} yet: {how}")
    return log


def print_history(history: History, console: Console) -> None:
    """All records, and what every name stands for now."""
    print_frame(history_frame(history), history.name, console, narrow="what")
    aliases = {"live": history.live, **history.aliases}
    for alias, number in aliases.items():
        if number is not None:
            say(console, f"{alias}: {history.shown(number)}")


def print_names(home: Home, console: Console) -> None:
    """Each name with what is live, and those that other homes have on the shared store."""
    rows = []
    for name in names_of(home):
        history = ReleaseLog(home, name).read()
        if history.live is not None and history.since is not None:
            rows.append((name, history.live_shown, minute(history.since)))
    elsewhere = names_elsewhere(home)
    if rows:
        columns = ["name", "live", "since (UTC)"]
        print_frame(pl.DataFrame(rows, columns, orient="row"), None, console)
    elif not elsewhere:
        say(console, "nothing is live yet (`fomo promote`)")
    for name in elsewhere:
        say(
            console, f"another home has releases of {name} on {home.remote_url}: `fomo releases "
            f"{name} --join` takes part in them",
        )  # fmt: skip


def copy_files(home: Home, history: History, number: int | None, folder: Path) -> str:
    """Copy the files of a release, by default of what is live, into a new folder; what to tell.

    Raises `InputError` where they are not there, or the folder is not empty.
    """
    found = released_files(home, history.name, number)
    if found is None:
        raise InputError(_why_no_files(history, number))
    if not found.forms:
        raise InputError(
            f"{history.shown(found.number)} of {history.name} has no files to copy: it can have "
            "none of the forms that `release.forms` asks for"
        )
    with new_folder(folder) as place:
        # `copytree` would raise a class of its own, which does not say what the system refused.
        for path in sorted(found.folder.rglob("*")):
            target = place / path.relative_to(found.folder)
            if path.is_dir():
                target.mkdir()
            else:
                shutil.copyfile(path, target)
    return f"{history.shown(found.number)}: {', '.join(found.forms)} in {folder}"


def _why_no_files(history: History, number: int | None) -> str:
    asked = history.live if number is None else number
    if asked is None:
        return f"nothing is live as {history.name}, so there are no files to copy"
    of = f"the files of {history.shown(asked)} of {history.name}"
    was_written = files_record(history, asked) is not None
    why = f"{of} {'are no longer in the store' if was_written else 'were never written'}"
    candidate = history.release(asked).candidate
    if asked == history.live and candidate is not None:
        name = candidate.experiment
        if was_written:
            return f"{why}: `fomo run {name}` writes them again, if `release.forms` still names any"
        return (
            f"{why}: `fomo run {name}` writes those that its `release.forms` names, or says why not"
        )
    return f"{why}: those of what is live are (`fomo rollback {history.name} --to {asked}`)"


def as_data(history: History) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "name": history.name,
        "live": history.live,
        "aliases": dict(history.aliases),
        "records": [asdict(record) for record in history.records],
    }
