"""The artifact store: `<root>/<kind>/<digest>/`, atomic, leased and verified.

An artifact's files are written beside it, flushed, completed by a manifest with each file's size
and checksum, and renamed into place: nobody ever sees half of one. A lease lets one process make
an artifact while the others wait for it. With a remote (any fsspec URL), the local store is a cache
of it: what is missing here is fetched and verified, what was made here is pushed, manifest last.
Nothing here knows what artifacts contain, or removes one that is intact.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.files import (
    explained,
    fsync,
    signature_of,
    skipped_where_refused,
    with_usual_permissions,
    write_bytes,
)
from fomo_dagster.store.leases import lease
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)

Make = Callable[[Path], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Artifact:
    """A finished, verified folder of files. `computed` tells whether this call made it."""

    kind: str
    digest: str
    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)
    computed: bool = False

    def path(self, name: str) -> Path:
        """The path of one of its files; raises `StoreError` where it has none of that name."""
        if name not in self.manifest["files"]:
            raise StoreError(
                f"{self.kind} {self.digest} has no file {name!r}: {sorted(self.manifest['files'])}"
            )
        return self.folder / name

    @property
    def cost(self) -> Mapping[str, Any]:
        """What making it took: `seconds`, and whatever else its maker measured."""
        cost: Mapping[str, Any] = self.manifest["cost"]
        return cost

    @property
    def created_at(self) -> str:
        """When it was made, by whomever: in UTC, as ISO 8601 writes it."""
        created_at: str = self.manifest["created_at"]
        return created_at


class Store:
    """Artifacts by recipe, on a local folder that may mirror a remote."""

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = root
        self.remote = remote

    def folder(self, kind: str, digest: str) -> Path:
        return self.root / kind / digest

    def find(self, recipe: Recipe) -> Artifact | None:
        """The verified artifact of `recipe`, or None; an altered one is set aside and said."""
        return self.open(recipe.kind, recipe.digest)

    def find_here(self, recipe: Recipe) -> Artifact | None:
        """As `find`, without asking the remote."""
        return self._open_local(recipe.kind, recipe.digest)

    def holds(self, recipe: Recipe) -> bool:
        """Whether `get_or_make` would find it; nothing is fetched from the remote."""
        kind, digest = recipe.kind, recipe.digest
        return self._open_local(kind, digest) is not None or (
            self.remote is not None and self.remote.has(kind, digest)
        )

    def open(self, kind: str, digest: str) -> Artifact | None:
        """The verified artifact at an address, fetched from the remote where only it has it."""
        artifact = self._open_local(kind, digest)
        if artifact is None and self.remote is not None and self.remote.has(kind, digest):
            with lease(self._lease_path(kind, digest)):
                artifact = self._open_or_fetch(kind, digest)
        return artifact

    def get_or_make(
        self, recipe: Recipe, make: Make, waiting: Callable[[str], None] | None = None
    ) -> Artifact:
        """The artifact of `recipe`: found, or made by `make(folder)` under its lease.

        `make` writes its files below the empty folder it is given and may return figures of what it
        cost. Raises what `make` raises (nothing is kept then), `StoreError` where the disk is full.
        """
        kind, digest = recipe.kind, recipe.digest
        artifact = self._open_local(kind, digest)
        if artifact is None:
            with lease(self._lease_path(kind, digest), waiting):
                artifact = self._open_or_fetch(kind, digest) or self._make(recipe, make)
        self._push_if_pending(artifact)
        return artifact

    def _open_or_fetch(self, kind: str, digest: str) -> Artifact | None:
        """As `open`, for the holder of the lease."""
        found = self._open_local(kind, digest)
        if found is None and self.remote is not None and self.remote.has(kind, digest):
            found = self._fetch(kind, digest)
        return found

    def _push_if_pending(self, artifact: Artifact) -> None:
        """Push what was made here; a mark stays until that worked, so no push is forgotten."""
        mark = self._pending_path(artifact.kind, artifact.digest)
        if self.remote is not None and mark.exists():
            self.remote.push(artifact.kind, artifact.digest, artifact.folder)
            mark.unlink(missing_ok=True)

    def _make(self, recipe: Recipe, make: Make) -> Artifact:
        kind, digest = recipe.kind, recipe.digest
        staging = self._staging(kind, digest)
        started = time.monotonic()
        try:
            with explained(staging):
                cost = dict(make(staging) or {})
                # of a training that was resumed, those of the processes before count too
                earlier = cost.pop("earlier_seconds", 0.0)
                cost["seconds"] = earlier + time.monotonic() - started
                if self.remote is not None:
                    write_bytes(self._pending_path(kind, digest), b"")
                self._publish(staging, recipe.as_data(), kind, digest, cost)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        folder = self.folder(kind, digest)
        manifest = json.loads((folder / MANIFEST).read_text())
        return Artifact(kind, digest, folder, manifest, computed=True)

    def _publish(
        self, staging: Path, recipe: Mapping[str, Any], kind: str, digest: str, cost: Any
    ) -> None:
        names = sorted(p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file())
        if not names:
            raise StoreError(f"making {kind} {digest} wrote no file")
        files = {}
        for name in names:
            with_usual_permissions(staging / name)
            fsync(staging / name)
            files[name] = {
                "size": (staging / name).stat().st_size,
                "checksum": digest_of_file(staging / name),
            }
        manifest = {
            "recipe": recipe,
            "files": files,
            "cost": cost,
            "created_at": datetime.now(UTC).isoformat(),
        }
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
        self._install(staging, kind, digest, files)

    def _install(self, staging: Path, kind: str, digest: str, files: Mapping[str, Any]) -> None:
        """Rename a complete staging folder to its address; the rename is what makes it visible."""
        fsync(staging / MANIFEST)
        for folder in [staging, *(p for p in staging.rglob("*") if p.is_dir())]:
            fsync(folder)
        final = self.folder(kind, digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(final)
        fsync(final.parent)
        self._stamp(kind, digest, final, files)

    def _open_local(self, kind: str, digest: str) -> Artifact | None:
        folder = self.folder(kind, digest)
        problem: str | None
        try:
            if not folder.is_dir():
                return None
            manifest = json.loads((folder / MANIFEST).read_text())
            problem = self._problem(kind, digest, folder, manifest["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            problem = f"its manifest cannot be read ({error})"
        except OSError as error:  # as of another user's files: no reason to make it again
            raise StoreError(
                f"{kind} {digest} in the store cannot be read ({error}), and is left as it is: see "
                "that this user may read it, and run again"
            ) from error
        if problem is None:
            return Artifact(kind, digest, folder, manifest)
        self._set_aside(kind, digest, folder, problem)
        return None

    def _problem(
        self, kind: str, digest: str, folder: Path, files: Mapping[str, Any]
    ) -> str | None:
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
        if self._read_stamp(kind, digest) == _signature(folder, files):
            return None
        for name, expected in files.items():
            if digest_of_file(folder / name) != expected["checksum"]:
                return f"the bytes of {name} were altered"
        self._stamp(kind, digest, folder, files)
        return None

    def _set_aside(self, kind: str, digest: str, folder: Path, problem: str) -> None:
        aside = self.root / ".damaged" / f"{kind}-{digest}-{time.time_ns()}"
        moved = "It was moved to {} and will be made again"
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
        except FileNotFoundError:  # another process set it aside first
            return
        except OSError as error:
            moved = f"It cannot be moved away ({error.strerror}) and counts as missing"
        logger.warning(
            "%s %s in the store is damaged: %s. %s.", kind, digest, problem, moved.format(aside)
        )

    def _fetch(self, kind: str, digest: str) -> Artifact | None:
        assert self.remote is not None
        staging = self._staging(kind, digest)
        try:
            with explained(staging):
                self.remote.fetch(kind, digest, staging)
                manifest = json.loads((staging / MANIFEST).read_text())
                for name, expected in manifest["files"].items():
                    if digest_of_file(staging / name) != expected["checksum"]:
                        logger.warning(
                            "%s of %s %s at %s is damaged; it will be made again.",
                            name, kind, digest, self.remote.url,
                        )  # fmt: skip
                        return None
                self._install(staging, kind, digest, manifest["files"])
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self._open_local(kind, digest)

    def _staging(self, kind: str, digest: str) -> Path:
        """The empty folder in which the holder of the lease works."""
        staging = self.root / ".staging" / f"{kind}-{digest}"
        shutil.rmtree(staging, ignore_errors=True)
        with explained(staging):
            staging.mkdir(parents=True)
        return staging

    def _lease_path(self, kind: str, digest: str) -> Path:
        return self.root / ".leases" / f"{kind}-{digest}"

    def _pending_path(self, kind: str, digest: str) -> Path:
        return self.root / ".pending" / f"{kind}-{digest}"

    def _stamp_path(self, kind: str, digest: str) -> Path:
        return self.root / ".verified" / kind / f"{digest}.json"

    def _stamp(self, kind: str, digest: str, folder: Path, files: Mapping[str, Any]) -> None:
        """Remember that the files were verified as they are."""
        with skipped_where_refused():
            stamp = json.dumps(_signature(folder, files)).encode()
            write_bytes(self._stamp_path(kind, digest), stamp)

    def _read_stamp(self, kind: str, digest: str) -> Any:
        try:
            return json.loads(self._stamp_path(kind, digest).read_text())
        except (OSError, ValueError):
            return None


def _signature(folder: Path, files: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: signature_of(folder / name) for name in files}
