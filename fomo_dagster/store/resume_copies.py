"""Copies of a training's resume points on the remote, so that another machine can go on from one.

`.resume/<digest>/newest.json` names the copy that counts: it is written when that is whole. A copy
that fails costs a warning, never the training.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.connections import Connection, TooLongError
from fomo_dagster.store.digests import digest_of_file

RESUME = ".resume"  # the folder of the remote
RESUME_POINT = "resume_point"
"""What its copies are called beside the kinds of artifacts."""
_NEWEST = "newest.json"
_MOST_BYTES = 10_000

logger = logging.getLogger(__name__)


class ResumeCopies:
    """The copies of one training, by the digest of its recipe."""

    def __init__(self, connection: Connection, digest: str) -> None:
        self._connection = connection
        self._folder = f"{RESUME}/{digest}"
        self._pushing: threading.Thread | None = None

    def push(self, point: Path, position: int) -> None:
        """Begin to copy a file, which may be replaced meanwhile; nothing, where the copy before
        still goes on."""
        if self._pushing is not None and self._pushing.is_alive():
            return
        kept = point.with_name(f"{point.name}.pushed")
        kept.unlink(missing_ok=True)
        try:
            os.link(point, kept)
        except OSError:  # a file system without links
            shutil.copyfile(point, kept)
        self._pushing = threading.Thread(target=self._push, args=(kept, position), daemon=True)
        self._pushing.start()

    def push_last(self, point: Path, position: int) -> None:
        """Copy a file, and wait for that."""
        self.settle()
        self.push(point, position)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being copied."""
        if self._pushing is not None:
            self._pushing.join()

    def pull(self, point: Path, position: int) -> bool:
        """Replace a file by a copy that is further than `position`; whether there was one."""
        fetched = point.with_name(f"{point.name}.fetched")
        try:
            newest = self._newest()
            if newest is None or newest["position"] <= position:
                return False
            point.parent.mkdir(parents=True, exist_ok=True)
            expected = newest["size"], newest["checksum"]
            found = self._connection.download(self._path(newest["name"]), fetched, newest["size"])
            if found != expected:
                raise StoreError("its bytes were altered")
            fetched.replace(point)
            return True
        except (StoreError, OSError, TooLongError) as error:
            logger.warning("the resume point at %s cannot be used: %s", self._connection.url, error)
            return False
        finally:
            fetched.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all copies."""
        with suppress(StoreError):  # they take space, and nobody looks for them any more
            self._connection.remove_below(self._path(""))

    def _push(self, kept: Path, position: int) -> None:
        try:
            name = f"{position}-{uuid.uuid4().hex}.pt"
            before = self._newest()
            said = {"position": position, "name": name, "size": kept.stat().st_size}
            said["checksum"] = digest_of_file(kept)
            self._connection.upload(kept, self._path(name))
            self._connection.write(json.dumps(said).encode(), self._path(_NEWEST))
            if before is not None:
                self._connection.remove(self._path(before["name"]))
        except (StoreError, OSError) as error:
            logger.warning("a resume point was not copied to %s: %s", self._connection.url, error)
        finally:
            kept.unlink(missing_ok=True)

    def _newest(self) -> dict[str, Any] | None:
        try:
            said = json.loads(self._connection.read(self._path(_NEWEST), _MOST_BYTES))
            if not all(type(said[name]) is int for name in ("position", "size")):
                return None
            name, checksum = said["name"], said["checksum"]
            is_own = isinstance(name, str) and Path(name).name == name
            return said if is_own and isinstance(checksum, str) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _path(self, name: str) -> str:
        return self._connection.path(f"{self._folder}/{name}".rstrip("/"))
