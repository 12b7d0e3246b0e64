"""What `fomo releases` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.home import Home
from fomo_dagster.releases.history import history_frame, minute
from fomo_dagster.releases.records import History, ReleaseLog, names_of


def log_of(home: Home, name: str) -> ReleaseLog:
    """The records of a release name. Raises `InputError` where there are none."""
    log = ReleaseLog(home, name)
    if not log.read().records:
        raise InputError(f"nothing was released as {name!r}: {nearest(name, names_of(home))}")
    return log


def print_history(history: History, console: Console) -> None:
    """All records, and what every name stands for now."""
    print_frame(history_frame(history), history.name, console, narrow="what")
    aliases = {"live": history.live, **history.aliases}
    for alias, number in aliases.items():
        if number is not None:
            say(console, f"{alias}: {history.shown(number)}")


def print_names(home: Home, console: Console) -> None:
    """Each name with what is live."""
    rows = []
    for name in names_of(home):
        history = ReleaseLog(home, name).read()
        if history.live is not None and history.since is not None:
            rows.append((name, history.live_shown, minute(history.since)))
    if not rows:
        say(console, "nothing is live yet (`fomo promote`)")
        return
    print_frame(pl.DataFrame(rows, ["name", "live", "since"], orient="row"), None, console)


def as_data(history: History) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "name": history.name,
        "live": history.live,
        "aliases": dict(history.aliases),
        "records": [asdict(record) for record in history.records],
    }
