"""Packed artifacts: `.packed/<kind>/<digest>/`, a second place that whole ones come back from.

A pack holds an artifact's manifest and files as they are (`kept/`), but for one file of weights: of
that it holds what differs from the same file of another artifact, its base (`changes`; see
`byte_planes`). `pack.json` says which base that is, and how each file of the pack was written.
What comes back is held against the manifest's checksum, so it is the same, bit for bit, or it is
refused.

A base is never packed itself. So whatever is unpacked takes one step, and no base hangs on another.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fomo_dagster.errors import StoreError
from fomo_dagster.store.damaged import set_aside
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of_file
from fomo_dagster.store.files import fsync
from fomo_dagster.store.manifests import (
    MANIFEST,
    RECORD,
    DamagedError,
    is_address,
    parse,
    why_unsafe,
)
from fomo_dagster.store.pins import pins_of
from fomo_dagster.store.places import Address, Places
from fomo_dagster.store.sealed import sealed, unsealed
from fomo_dagster.store.verified import Verified

if TYPE_CHECKING:
    from fomo_dagster.store.low_rank import LowRank

PACK = "pack.json"
_CHANGES = "changes"
_KEPT = "kept"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pack:
    """An artifact that is kept packed.

    name: its file that is kept as what differs from that of `base`; checksum: of that one.
    manifest: of the artifact; data: its bytes.
    """

    folder: Path
    base: Address
    name: str
    checksum: str
    manifest: Mapping[str, Any]
    data: bytes


class Whole(Protocol):
    """A whole artifact, as `Artifact`."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What it holds."""

    def path(self, name: str) -> Path:
        """Of one of its files."""


class Packs:
    """The packs of a store. whole: gives the verified artifact at an address, if it is here
    whole."""

    def __init__(self, places: Places, whole: Callable[[str, str], Whole | None]) -> None:
        self._places = places
        self._whole = whole
        self._verified = Verified(places.root / ".verified" / ".packed")
        self._verified_wholes = Verified(places.root / ".verified")

    def has(self, kind: str, digest: str) -> bool:
        """Whether an artifact can be brought back; nothing is unpacked."""
        return self._usable(kind, digest) is not None

    def unpack(self, kind: str, digest: str, folder: Path) -> Mapping[str, Any] | None:
        """Write an artifact's files into an empty folder; gives its manifest, or None where it can
        not be brought back, which is reported."""
        usable = self._usable(kind, digest)
        if usable is None:
            return None
        pack, start = usable
        try:
            _restore(pack, start, folder)
        except DamagedError as damage:
            set_aside(self._places, kind, digest, pack.folder, str(damage))
            return None
        return pack.manifest

    def _usable(self, kind: str, digest: str) -> tuple[Pack, Path] | None:
        """The pack of an artifact, and the file that it is unpacked with. What was altered is set
        aside and reported; what lacks its base is reported."""
        folder = self._places.packed(kind, digest)
        if not folder.is_dir():
            return None
        pins_of(self._places.root).add(kind, digest)  # which keeps its base, too
        try:
            pack = self.find(kind, digest)
        except DamagedError as damage:
            set_aside(self._places, kind, digest, folder, str(damage))
            return None
        except FileNotFoundError:  # another process set it aside in this moment
            return None
        except OSError as error:
            raise StoreError(
                f"{kind} {digest} is kept packed in {folder}, which cannot be read ({error}): make "
                "sure that this user may read it, and run again"
            ) from error
        if pack is None:
            return None
        base = self._whole(*pack.base)
        there = None if base is None else base.manifest["files"].get(pack.name)
        if base is not None and there is not None and there["checksum"] == pack.checksum:
            return pack, base.path(pack.name)
        logger.warning(
            "%s %s is kept packed, as what differs from %s %s, which %s. It counts as missing.",
            kind, digest, *pack.base,
            "is not in the store" if base is None else f"had another {pack.name} then",
        )  # fmt: skip
        return None

    def find(self, kind: str, digest: str) -> Pack | None:
        """The pack of an artifact, whose files were verified; None if there is none. Raises
        `DamagedError` if it was altered."""
        folder = self._places.packed(kind, digest)
        said = _read(folder)
        if said is None:
            return None
        files = said["files"]
        if any(why_unsafe(name) for name in files):
            raise DamagedError(f"{PACK} names files outside of it")
        problem = self._verified.problem(kind, digest, folder, files)
        if problem is not None:
            raise DamagedError(f"of its pack, {problem}")
        data = (folder / _KEPT / MANIFEST).read_bytes()
        base, manifest = said["base"], parse(data, kind, digest)
        if said["name"] not in manifest["files"]:
            raise DamagedError(f"its pack is of a file {said['name']!r}, which it has not")
        return Pack(folder, base, said["name"], said["checksum"], manifest, data)

    def is_copy(self, kind: str, digest: str) -> bool:
        """Whether a whole artifact, which is here, can be brought back from its pack. Pins nothing:
        whoever cleans asks it, for whom pins wait."""
        with suppress(DamagedError, OSError):
            pack = self.find(kind, digest)
            whole = self._places.artifact(kind, digest) / MANIFEST
            if pack is None or whole.read_bytes() != pack.data:
                return False
            base = self._places.artifact(*pack.base)
            there = parse((base / MANIFEST).read_bytes(), *pack.base)["files"]
            is_same = there.get(pack.name, {}).get("checksum") == pack.checksum
            return is_same and self._verified_wholes.problem(*pack.base, base, there) is None
        return False

    def bases(self) -> dict[Address, Address]:
        """Packed artifact → what it is unpacked with. Without packs that cannot be read, which
        nothing brings back."""
        found = {}
        for address in self._places.packs():
            with suppress(DamagedError):
                said = _read(self._places.packed(*address))
                if said is not None:
                    found[address] = said["base"]
        return found

    def write(
        self, address: Address, manifest: Mapping[str, Any], base: Address, start: Whole, name: str,
        low_rank: LowRank | None = None,
    ) -> None:  # fmt: skip
        """Keep a whole artifact packed as well, in the place of what is there. The caller holds its
        lease for `packed`.

        start: the artifact `base`, whole; name: the file that both have; low_rank: what adapters
        add to it, which are a file of the artifact. Raises `StoreError` if
        what comes back is not what the manifest says, as where memory or a disk fails.
        """
        from fomo_dagster.store.byte_planes import write_differences

        whole = self._places.artifact(*address)
        staging = self._places.new_staging(*address, "packed")
        try:
            kept = [MANIFEST, *(other for other in manifest["files"] if other != name)]
            for other in kept:
                _copy(whole / other, staging / _KEPT / other)
            for other in manifest["record"]:
                with suppress(FileNotFoundError):  # nothing depends on it
                    _copy(whole / RECORD / other, staging / _KEPT / RECORD / other)
            write_differences(whole / name, start.path(name), staging / _CHANGES, low_rank)
            back = {other: digest_of_file(staging / _KEPT / other) for other in kept[1:]}
            back[name] = _write_restored(staging, start.path(name), None)
            for other, checksum in back.items():
                if checksum != manifest["files"][other]["checksum"]:
                    raise StoreError(
                        f"{other} of {' '.join(address)} does not come back from its pack as it "
                        "was, so it stays whole: this machine's memory or disk may be failing"
                    )
            names = [_CHANGES, *(f"{_KEPT}/{other}" for other in kept)]
            files = {other: _entry(staging / other) for other in names}
            said = {
                "base": list(base), "name": name,
                "checksum": start.manifest["files"][name]["checksum"], "files": files,
            }  # fmt: skip
            (staging / PACK).write_bytes(sealed(said))
            for written in sorted(staging.rglob("*")):
                fsync(written)
            self._install(address, staging, files)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _install(self, address: Address, staging: Path, files: Mapping[str, Any]) -> None:
        fsync(staging)
        final, old = self._places.packed(*address), self._places.trash / uuid.uuid4().hex
        final.parent.mkdir(parents=True, exist_ok=True)
        old.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # it is whole too, so nothing is lost between the two
            final.rename(old)
        staging.rename(final)
        fsync(final.parent)
        shutil.rmtree(old, ignore_errors=True)
        self._verified.stamp(*address, final, files)

    def remove(self, address: Address, to: Path) -> bool:
        """Move a pack away; whether there was one."""
        with suppress(FileNotFoundError):
            self._places.packed(*address).rename(to)
            self.forget(address)
            return True
        return False

    def forget(self, address: Address) -> None:
        """What was verified of a pack that went."""
        kind, digest = address
        (self._places.root / ".verified" / ".packed" / kind / f"{digest}.json").unlink(
            missing_ok=True
        )


def _read(folder: Path) -> dict[str, Any] | None:
    """What a pack says of itself; None where there is none. Raises `DamagedError`."""
    try:
        said = unsealed((folder / PACK).read_bytes())
        kind, digest = said["base"]
        if not is_address(kind, digest):
            raise ValueError(f"the base {kind} {digest} is no address")
        return {
            "base": (kind, digest), "name": str(said["name"]), "checksum": str(said["checksum"]),
            "files": dict(said["files"]),
        }  # fmt: skip
    except FileNotFoundError:
        if folder.is_dir():
            raise DamagedError(f"{PACK} of its pack is missing") from None
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{PACK} of its pack cannot be read ({error})") from error


def _restore(pack: Pack, start: Path, folder: Path) -> None:
    """Write the artifact's files into an empty folder. start: the file of the base. Raises
    `DamagedError` if they do not become what the manifest says."""
    for name in (MANIFEST, *pack.manifest["files"]):
        if name != pack.name:
            _copy(pack.folder / _KEPT / name, folder / name)
    for name in pack.manifest["record"]:
        with suppress(FileNotFoundError):
            _copy(pack.folder / _KEPT / RECORD / name, folder / RECORD / name)
    target = folder / pack.name
    target.parent.mkdir(parents=True, exist_ok=True)
    checksum = _write_restored(pack.folder, start, target)
    if checksum != pack.manifest["files"][pack.name]["checksum"]:
        raise DamagedError(f"{pack.name} does not come back from its pack as it was")


def _write_restored(folder: Path, start: Path, target: Path | None) -> str:
    """The digest of the file that comes back from a pack's folder, which is written where there is
    a `target`."""
    from fomo_dagster.store.byte_planes import restored

    digest, blocks = hashlib.sha256(), restored(folder / _CHANGES, start, folder / _KEPT)
    if target is None:
        for block in blocks:
            digest.update(block)
    else:
        with target.open("wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
        fsync(target)
    return digest.hexdigest()[:DIGEST_LENGTH]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)  # no link: those change what `Verified` knows a file by
    fsync(target)


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "checksum": digest_of_file(path)}
