"""Remembers which artifacts' files were verified, so that verifying them again is a stat each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.file_formats import problem_of_format
from fomo_dagster.store.files import signature_of, skipped_where_refused, write_bytes


class Verified:
    """The signatures of verified files, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def problem(self, kind: str, digest: str, folder: Path, files: Mapping[str, Any]) -> str | None:
        """What is wrong with an artifact's files, or None.

        Bytes are hashed again only where a file's size, times or inode are not those of its last
        verification, so that verifying an untouched artifact takes a stat per file.
        """
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size} bytes, not {expected['size']}"
        if self._read(kind, digest) == _signature(folder, files):
            return None
        for name, expected in files.items():
            if digest_of_file(folder / name) != expected["checksum"]:
                return f"the bytes of {name} were altered"
            if (problem := problem_of_format(folder / name)) is not None:
                return problem
        self.stamp(kind, digest, folder, files)
        return None

    def stamp(self, kind: str, digest: str, folder: Path, files: Mapping[str, Any]) -> None:
        """Remember that the files were verified as they are."""
        with skipped_where_refused():
            stamp = json.dumps(_signature(folder, files)).encode()
            write_bytes(self._path(kind, digest), stamp)

    def _read(self, kind: str, digest: str) -> Any:
        try:
            return json.loads(self._path(kind, digest).read_text())
        except (OSError, ValueError):
            return None

    def _path(self, kind: str, digest: str) -> Path:
        return self._root / kind / f"{digest}.json"


def _signature(folder: Path, files: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: signature_of(folder / name) for name in files}
