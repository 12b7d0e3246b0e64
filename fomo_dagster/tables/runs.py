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
from fomo_dagster.tables.json_files import OF_RUNS
from fomo_dagster.tables.view_columns import RUNS


def append(home: Path, row: Mapping[str, Any]) -> None:
    """Append a materialisation; who and where is added. row: columns of the view `runs`."""
    began = str(row["began"])
    host = socket.gethostname()
    line = {**dict.fromkeys(RUNS), **row}
    line |= {"person": person(), "host": host, "process": os.getpid()}
    path = home / OF_RUNS.folder / began[: len("2026-11")] / f"{host}-{os.getpid()}{OF_RUNS.ending}"
    with skipped_where_refused(), explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")


def person() -> str | None:
    """The name of whoever runs this process, if it has one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as of a number without a name
        return None
