"""Verifies that table files are what their heads say, since one flipped bit is another score.

Neither DuckDB nor Polars tells a changed byte of a Parquet file from a value, and some changes
crash the process that reads it. So a head holds the checksum of each file with its asset's rows,
and a file is verified before anything reads it.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from types import TracebackType

from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.files import signature_of, skipped_where_refused, write_bytes
from fomo_dagster.store.heads import Head
from fomo_dagster.tables.files import table_path


class Verified:
    """Verifies the table files of a home, and keeps what was verified for the next time.

    Bytes are hashed again only if a file's size, times or inode differ from its last verification.
    So 1,000 untouched files cost 1,000 stats.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stamps_path = home / "cache" / "verified_tables.json"
        self._changed = False

    def __enter__(self) -> Verified:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._changed:
            with skipped_where_refused():
                write_bytes(self._stamps_path, json.dumps(self._stamps).encode())

    def problem(self, head: Head, table: str) -> str | None:
        """What is wrong with the file of an asset's rows; None if it is as it was written."""
        path = table_path(self._home, table, head.asset, head.digest)
        return self.problem_of(path, (head.tables or {}).get(table))

    def problem_of(self, path: Path, expected: str | None) -> str | None:
        """As `problem`, of the file that should have this checksum."""
        name = str(path.relative_to(self._home))
        try:
            signature = signature_of(path)
            if expected is None:
                return "its head knows no checksum"
            stamp = [expected, *signature]
            if self._stamps.get(name) == stamp:
                return None
            if digest_of_file(path) != expected:
                return "its bytes were altered"
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        self._stamps[name] = stamp
        self._changed = True
        return None

    @cached_property
    def _stamps(self) -> dict[str, list[object]]:
        try:
            stamps = json.loads(self._stamps_path.read_bytes())
        except (OSError, ValueError):
            return {}
        return stamps if isinstance(stamps, dict) else {}
