"""The artifact store: `<root>/<kind>/<digest>/`, atomic, leased and verified.

An artifact's files are written next to their place, flushed, completed by a manifest with each
file's size and checksum, and renamed into place. Nobody ever sees half an artifact. What differs
from run to run (cost, timings, plots) is in its folder `record`, which no checksum covers and
nothing depends on. A lease lets one process make an artifact while the others wait for it. With a
remote (any fsspec URL), the local store is a cache: missing artifacts are fetched and verified, new
ones are pushed. Some are kept packed (`packs`), and unpacked by whoever opens them. Nothing here
knows what artifacts contain. Only `cleaning` removes intact ones, but none that a process was told
is here (`pins`).
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.stopping import only_while
from fomo_dagster.store.claims import RobbedError
from fomo_dagster.store.damaged import set_aside
from fomo_dagster.store.files import (
    explained,
    fsync,
    with_usual_permissions,
    write_bytes,
)
from fomo_dagster.store.leases import Held, lease
from fomo_dagster.store.manifests import (
    MANIFEST,
    RECORD,
    DamagedError,
    is_address,
    manifest_of,
    parse,
    why_unsafe,
)
from fomo_dagster.store.notes import Note, note_of
from fomo_dagster.store.packs import Packs
from fomo_dagster.store.pins import pins_of
from fomo_dagster.store.places import Places, name_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote
from fomo_dagster.store.verified import Verified

COST = "cost.json"
_REPLACE = b"replace"  # what a mark says of a push to where something is damaged
_RETIRED = b"retired"  # and where something is to be made again, which must not be fetched

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
        """The path of one of its files; raises `StoreError` if it has no file of that name."""
        if name not in self.manifest["files"]:
            raise StoreError(
                f"{self.kind} {self.digest} has no file {name!r}: {sorted(self.manifest['files'])}"
            )
        return self.folder / name

    def record(self, name: str) -> Path | None:
        """The path of a file in its record; None if it is not here."""
        # Before there were records, they stood among the files.
        path = self.folder / (name if name in self.manifest["files"] else f"{RECORD}/{name}")
        return path if path.is_file() else None

    @cached_property
    def _making(self) -> Mapping[str, Any]:
        """What its record says; of no use where it was lost or altered, and then nothing fails."""
        path = self.record(COST)
        try:
            making = json.loads(path.read_bytes()) if path is not None else self.manifest
        except (OSError, ValueError, RecursionError):
            return {}
        return making if isinstance(making, dict) else {}

    @property
    def cost(self) -> Mapping[str, float]:
        """What making it took: `seconds`, and whatever else its maker measured; empty if that is no
        longer known."""
        cost = self._making.get("cost")
        if not isinstance(cost, dict):
            return {}
        return {name: value for name, value in cost.items() if _is_number(value)}

    @property
    def created_at(self) -> str:
        """When it was made, by whomever, or else when it arrived here: in UTC, as ISO 8601."""
        try:
            return datetime.fromisoformat(self._making["created_at"]).isoformat()
        except (KeyError, ValueError, TypeError):
            since_1970 = (self.folder / MANIFEST).stat().st_mtime
            return datetime.fromtimestamp(since_1970, UTC).isoformat()


def record_path(folder: Path, name: str) -> Path:
    """Where a maker that is given `folder` writes what differs from run to run."""
    (folder / RECORD).mkdir(exist_ok=True)
    return folder / RECORD / name


class Store:
    """Artifacts by recipe, on a local folder that may mirror a remote."""

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = root
        self.remote = remote
        self.places = Places(root)
        self.packs = Packs(self.places, self._open_local)
        self._verified = Verified(root / ".verified")

    def note(self, recipe: Recipe) -> Note:
        """Whether its artifact was cleaned, if it is not there."""
        return note_of(self.places.cleaned(recipe.kind, recipe.digest))

    def folder(self, kind: str, digest: str) -> Path:
        """Raises `StoreError` if these cannot be an address."""
        return self.places.artifact(kind, digest)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The verified artifact of `recipe`, or None. An altered artifact is set aside and
        reported."""
        return self.open(recipe.kind, recipe.digest)

    def find_here(self, recipe: Recipe) -> Artifact | None:
        """As `find`, of what is here whole: without unpacking, and without asking the remote."""
        return self._open_local(recipe.kind, recipe.digest)

    def holds(self, recipe: Recipe) -> bool:
        """Whether `get_or_make` would find it; nothing is unpacked, or fetched from the remote."""
        kind, digest = recipe.kind, recipe.digest
        if self._open_local(kind, digest) is not None or self.packs.has(kind, digest):
            return True
        try:
            if self.remote is None or self._is_retired(kind, digest):
                return False
            pins_of(self.root).add(kind, digest)
            # What was cleaned here is no more used than before because a plan asks for it.
            uses = self.note(recipe).day is None
            return self.remote.has(kind, digest, uses=uses)
        except DamagedError as damage:
            self._say_of_remote(kind, digest, damage)
            return False

    def open(self, kind: str, digest: str) -> Artifact | None:
        """The verified artifact at an address, unpacked where it is kept packed, fetched from the
        remote where only it has it."""
        artifact = self._open_local(kind, digest)
        if artifact is None and self.places.packed(kind, digest).is_dir():
            artifact = self._bring(kind, digest, "unpacked", self.packs.unpack)
        if artifact is None and self.remote is not None and not self._is_retired(kind, digest):
            artifact = self._bring(kind, digest, "fetched", self._fetch)
        return artifact

    def retire(self, kind: str, digest: str) -> None:
        """Have an artifact made again by whoever asks for it next, as where its kind leaves more
        files than it did; on the remote, what is made then takes its place."""
        with lease(self.places.lease(kind, digest)):
            if self.remote is not None:
                write_bytes(self.places.pending(kind, digest), _RETIRED)
            gone = self.places.new_staging(kind, digest, "retired")
            folder = self.folder(kind, digest)
            try:
                with explained(folder):
                    if folder.is_dir():
                        folder.rename(gone / kind)
                    self.packs.remove((kind, digest), gone / "packed")
            finally:
                shutil.rmtree(gone, ignore_errors=True)

    def _is_retired(self, kind: str, digest: str) -> bool:
        try:
            return self.places.pending(kind, digest).read_bytes() == _RETIRED
        except FileNotFoundError:
            return False

    def get_or_make(
        self,
        recipe: Recipe,
        make: Make,
        waiting: Callable[[str], None] | None = None,
        claim: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(False),
        *,
        takes_long: bool = False,
    ) -> Artifact:
        """The artifact of `recipe`: found, or made by `make(folder)` under its lease.

        `make` writes its files below the empty folder that it is given, and may return figures of
        what it cost. `claim` is held while it runs, and tells whether that took waiting; after
        waiting, the store is searched again. takes_long: longer than to claim it on the remote, so
        that no two machines make it at once. Raises what `make` raises, and then keeps nothing.
        Raises `StoreError` if the disk is full, or if the remote cannot be used: before anything is
        made, or after it was kept.
        """
        kind, digest = recipe.kind, recipe.digest
        artifact = self._open_local(kind, digest)
        while artifact is None:
            try:
                artifact = self._find_or_make(recipe, make, waiting, claim, takes_long)
            except RobbedError:
                logger.warning(
                    "%s %s: this process stood still for so long that another makes it; what was "
                    "made here is dropped", kind, digest,
                )  # fmt: skip
        self._push_if_pending(artifact)
        return artifact

    def _find_or_make(
        self,
        recipe: Recipe,
        make: Make,
        waiting: Callable[[str], None] | None,
        claim: Callable[[], AbstractContextManager[bool]],
        takes_long: bool,
    ) -> Artifact:
        """As `get_or_make`. If another took a lease over, keeps nothing: raises `RobbedError`."""
        kind, digest = recipe.kind, recipe.digest
        with lease(self.places.lease(kind, digest), waiting) as leased:
            artifact = self.open(kind, digest)
            if artifact is not None:  # as where another machine made it since one was killed here
                self.places.remove_abandoned(name_of(kind, digest))
                return artifact
            if self.remote is not None:
                self.remote.check_writable()
            with self.claimed([recipe] if takes_long else [], waiting) as claimed:
                # Another machine may have been there between our look and our claim.
                artifact = self.open(kind, digest) if claimed else None
                if artifact is None:
                    held = (leased.held, *claimed)
                    with only_while(partial(_check_not_robbed, held)), claim() as waited:
                        artifact = self.open(kind, digest) if waited else None
                        artifact = artifact or self._make(recipe, make, held)
                self._push_if_pending(artifact)  # before another machine holds the claim
        return artifact

    def claimed(
        self, recipes: Sequence[Recipe], waiting: Callable[[str], None] | None = None
    ) -> AbstractContextManager[tuple[Held, ...]]:
        """As of `Remote.claimed`; gives nothing where there is no remote."""
        if self.remote is None:
            return nullcontext(())
        return self.remote.claimed([(recipe.kind, recipe.digest) for recipe in recipes], waiting)

    def push_pending(self) -> None:
        """Push whatever was made here and could not be pushed before."""
        for mark in sorted((self.root / ".pending").glob("*")):
            kind, _, digest = mark.name.partition("-")
            artifact = self._open_local(kind, digest) if is_address(kind, digest) else None
            if artifact is not None:  # else one that is being made now, or whose making was killed
                self._push_if_pending(artifact)

    def push(self, artifact: Artifact) -> None:
        """Push what was made without the remote; where that fails, the next run does."""
        write_bytes(self.places.pending(artifact.kind, artifact.digest), b"")
        self._push_if_pending(artifact)

    def _push_if_pending(self, artifact: Artifact) -> None:
        """Push what was made here; a mark stays until that worked, so no push is forgotten."""
        mark = self.places.pending(artifact.kind, artifact.digest)
        if self.remote is not None and mark.exists():
            replace = mark.read_bytes() in (_REPLACE, _RETIRED)
            self.remote.push(artifact.kind, artifact.digest, artifact.folder, replace=replace)
            with suppress(OSError):  # as on a read-only disk: it is whole there, the next time too
                mark.unlink()

    def _make(self, recipe: Recipe, make: Make, held: Sequence[Held]) -> Artifact:
        kind, digest = recipe.kind, recipe.digest
        staging = self.places.new_staging(kind, digest)
        started = time.monotonic()
        try:
            with explained(staging):
                cost = dict(make(staging) or {})
                # of a training that was resumed, those of the processes before count too
                earlier = cost.pop("earlier_seconds", 0.0)
                cost["seconds"] = earlier + time.monotonic() - started
                _check_not_robbed(held, ask=True)
                pins_of(self.root).add(kind, digest)
                if self.remote is not None and not self.places.pending(kind, digest).exists():
                    write_bytes(self.places.pending(kind, digest), b"")
                self._publish(staging, recipe, cost)
        except Exception:
            _check_not_robbed(held, ask=True)  # who did so removed what stood here
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        artifact = self._open_local(kind, digest)
        if artifact is None:
            raise StoreError(
                f"{kind} {digest} was removed or altered as soon as it was made: make sure "
                "that nothing else writes to FOMO_HOME, and run again"
            )
        return replace(artifact, computed=True)

    def _publish(self, staging: Path, recipe: Recipe, cost: Any) -> None:
        of_making = {"cost": cost, "created_at": datetime.now(UTC).isoformat()}
        record_path(staging, COST).write_text(json.dumps(of_making))
        names = sorted(p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file())
        recorded = [name for name in names if name.startswith(f"{RECORD}/")]
        content = [name for name in names if name not in recorded]
        if not content:
            raise StoreError(f"making {recipe.kind} {recipe.digest} wrote no file")
        for name in names:
            if why := why_unsafe(name):
                raise StoreError(f"making {recipe.kind} wrote a file {name!r}: {why}")
            with_usual_permissions(staging / name)
            fsync(staging / name)
        manifest = manifest_of(recipe, staging, content, recorded)
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
        self._install(staging, recipe.kind, recipe.digest, manifest["files"])

    def _install(self, staging: Path, kind: str, digest: str, files: Mapping[str, Any]) -> None:
        """Rename a complete staging folder to its address; the rename is what makes it visible."""
        fsync(staging / MANIFEST)
        for folder in [staging, *(p for p in staging.rglob("*") if p.is_dir())]:
            fsync(folder)
        final = self.folder(kind, digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            return  # fetched by one process, and made by another: the first is as good
        fsync(final.parent)
        self.places.cleaned(kind, digest).unlink(missing_ok=True)
        self._verified.stamp(kind, digest, final, files)

    def _open_local(self, kind: str, digest: str) -> Artifact | None:
        folder = self.folder(kind, digest)
        problem: str | None
        try:
            if not folder.is_dir():
                return None
            pins_of(self.root).add(kind, digest)  # before it is looked at
            manifest = parse((folder / MANIFEST).read_bytes(), kind, digest)
            problem = self._verified.problem(kind, digest, folder, manifest["files"])
        except DamagedError as damage:
            problem = str(damage)
        except FileNotFoundError as error:
            problem = f"its manifest cannot be read ({error})"
        except OSError as error:  # as of another user's files: no reason to make it again
            raise StoreError(
                f"{kind} {digest} in the store cannot be read ({error}), and is left as it "
                "is: make sure that this user may read it, and run again"
            ) from error
        if problem is None:
            return Artifact(kind, digest, folder, manifest)
        set_aside(self.places, kind, digest, folder, problem)
        return None

    def _bring(
        self, kind: str, digest: str, doing: str, bring: Callable[..., Mapping[str, Any] | None]
    ) -> Artifact | None:
        """The artifact that `bring(kind, digest, folder)` puts into a folder; None if it gives no
        manifest. Its lease is not that of making, whose holder may wait for who brings it."""
        with lease(self.places.lease(kind, digest, doing)):
            found = self._open_local(kind, digest)
            if found is not None:
                return found
            staging = self.places.new_staging(kind, digest, doing)
            try:
                pins_of(self.root).add(kind, digest)
                with explained(staging):
                    manifest = bring(kind, digest, staging)
                    if manifest is None:
                        return None
                    self._install(staging, kind, digest, manifest["files"])
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return self._open_local(kind, digest)

    def _fetch(self, kind: str, digest: str, folder: Path) -> Mapping[str, Any] | None:
        assert self.remote is not None
        mark = self.places.pending(kind, digest)
        try:
            manifest = self.remote.fetch(kind, digest, folder)
        except DamagedError as damage:
            self._say_of_remote(kind, digest, damage)
            write_bytes(mark, _REPLACE)
            return None
        if manifest is not None:
            mark.unlink(missing_ok=True)
        return manifest

    def _say_of_remote(self, kind: str, digest: str, damage: DamagedError) -> None:
        assert self.remote is not None
        logger.warning(
            "%s %s at %s is damaged: %s. It counts as missing, and will be made again and replaced "
            "there.",
            kind, digest, self.remote.url, damage,
        )  # fmt: skip


def _check_not_robbed(held: Sequence[Held], *, ask: bool = False) -> None:
    """Raise `RobbedError` where another took over; not where that cannot be asked."""
    for one in held:
        with suppress(StoreError):
            if one.robbed or (ask and one.is_robbed()):
                raise RobbedError


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < math.inf
