"""What was ever materialised: a line each, of what was superseded since as well.

A process appends to a file of its own in `home/runs/<year-month>/`, so nobody waits for anybody,
and a line that a full disk or a kill cut short is passed over. Nothing depends on these lines.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fomo_dagster.store.files import explained, skipped_where_refused
from fomo_dagster.tables.view_columns import RUNS

FOLDER = "runs"
_NO_LINES = Path("none", "none.jsonl")  # a glob that matches no file is an error to DuckDB


def append(home: Path, row: Mapping[str, Any]) -> None:
    """Append a materialisation; who and where is added. row: columns of the view `runs`."""
    began = str(row["began"])
    person, host = _person(), socket.gethostname()
    line = {**dict.fromkeys(RUNS), **row}
    line |= {"person": person, "host": host, "process": os.getpid()}
    path = home / FOLDER / began[: len("2026-11")] / f"{host}-{os.getpid()}.jsonl"
    with skipped_where_refused(), explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")


def select(folder: str | None) -> str:
    """The SELECT of all lines. folder: an SQL expression for the home as the beginning of a glob;
    None: there are none."""
    if folder is None:
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, (kind, _) in RUNS.items())
        return f"SELECT {columns} WHERE false"
    columns = ", ".join(f"'{name}': '{kind}'" for name, (kind, _) in RUNS.items())
    return (
        f"SELECT {', '.join(RUNS)} FROM read_json({folder} || '/{FOLDER}/*/*.jsonl', "
        f"format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}}) "
        "WHERE asset IS NOT NULL"
    )


def ensure_file(home: Path) -> None:
    """A file without lines, if there is none."""
    path = home / FOLDER / _NO_LINES
    if not path.exists():
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def are_there(home: Path) -> bool:
    """Whether there is any file of lines."""
    return any(home.glob(f"{FOLDER}/*/*.jsonl"))


def _person() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as of a number without a name
        return None
