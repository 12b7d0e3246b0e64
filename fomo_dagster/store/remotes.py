"""A remote side of the store on any filesystem that fsspec reaches (S3, GCS, a shared mount).

`<kind>/<digest>/manifest.json` makes an artifact exist there: one object, written last. Its files
are in a folder next to it, named by the digest of their bytes. So machines that push the same
address at once never mix their files, and the manifest says which files are its own. Only what a
manifest lists is fetched, by names that `manifests.parse` accepted, and no more bytes than it says.
What no home needs any more, `cleaning` removes: `.users` says who needs what (see `users`).

In `.claims`, machines that share the remote say what they are making, in `.resume` they leave the
resume points of their trainings, if they are asked to, and in `.releases` what went live.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.claims import Claim
from fomo_dagster.store.connections import Connection, TooLongError
from fomo_dagster.store.file_formats import problem_of_format
from fomo_dagster.store.leases import Held, holding
from fomo_dagster.store.manifests import (
    MANIFEST,
    MOST_BYTES,
    RECORD,
    DamagedError,
    check_address,
    content_of,
    is_address,
    parse,
)
from fomo_dagster.store.places import Address
from fomo_dagster.store.resume_copies import RESUME, RESUME_POINT, ResumeCopies
from fomo_dagster.store.users import HomeName, Users

_SECONDS_BETWEEN_LOOKS = 2.0  # at a claim that another holds
_MOST_BYTES_OF_SMALL_FILE = 10_000_000


class Remote:
    """Artifacts below one fsspec URL.

    Every method raises `StoreError` or `InputError`, with the URL, if the remote cannot be used.
    All except `push` raise `DamagedError` if what is there is not a whole artifact.
    """

    def __init__(self, url: str, home: HomeName | None = None) -> None:
        """home: who uses it; None: nobody who says so."""
        self._connection = Connection(url)
        self.url = self._connection.url
        self.users = Users(self._connection, RemoteFolder(self._connection, ".claims"), home)

    def check_writable(self) -> None:
        """Raise if nothing could be pushed; asks once."""
        self._connection.check()
        self._connection.check_writable()

    @property
    def has_claims(self) -> bool:
        """Whether machines can claim there what they make; else two may make the same."""
        return self._connection.creates

    @contextmanager
    def claimed(
        self, addresses: Sequence[tuple[str, str]], waiting: Callable[[str], None] | None = None
    ) -> Iterator[tuple[Held, ...]]:
        """Within it, no other machine makes what belongs there; gives what is held, which is
        nothing unless this `has_claims`. waiting: as of `lease`."""
        with ExitStack() as stack:
            held: list[Held] = []
            if addresses and self.has_claims:
                # In one order on all machines, so that two never wait for each other.
                for kind, digest in sorted(addresses):
                    check_address(kind, digest)
                    place = RemoteFolder(self._connection, ".claims")
                    claim = Claim(place, f"{kind}-{digest}", _SECONDS_BETWEEN_LOOKS)
                    held.append(stack.enter_context(holding(claim, waiting)).held)
            yield tuple(held)

    def folder(self, name: str) -> RemoteFolder:
        """Small files beside the artifacts."""
        return RemoteFolder(self._connection, name)

    def resume_copies(self, digest: str) -> ResumeCopies:
        """Where machines find the resume points of each other's training of a recipe."""
        return ResumeCopies(self._connection, digest)

    def contents(self) -> dict[Address, int]:
        """The addresses at which there is anything, with its bytes."""
        self._connection.check()
        found: dict[Address, int] = {}
        for name, size in self._connection.listing(self._path()).items():
            kind, _, rest = name.partition("/")
            digest = rest.partition("/")[0]
            if is_address(kind, digest):
                found[kind, digest] = found.get((kind, digest), 0) + size
        return found

    def finished_resume_copies(self, there: Collection[Address]) -> dict[Address, int]:
        """Copies of resume points of what is finished, by `RESUME_POINT` and digest, with their
        bytes: their process was killed. there: the addresses of `contents`."""
        finished = {digest for _, digest in there}
        found: dict[Address, int] = {}
        for name, size in self._connection.listing(self._path(RESUME)).items():
            address = RESUME_POINT, name.partition("/")[0]
            if address[1] in finished:
                found[address] = found.get(address, 0) + size
        return found

    def has(self, kind: str, digest: str, *, uses: bool = True) -> bool:
        """Whether an artifact is there, with all its files in their sizes. uses: whether this home
        then relies on it."""
        if uses:
            self.users.add(kind, digest)
        found = self._manifest(kind, digest)
        if found is not None:
            self._folder_of(found[1], kind, digest)
        return found is not None

    def fetch(self, kind: str, digest: str, folder: Path) -> Mapping[str, Any] | None:
        """Copy an artifact into the empty `folder`, verified, and return its manifest; None if
        there is none. Raises `OSError` if `folder` cannot take it."""
        self.users.add(kind, digest)
        found = self._manifest(kind, digest)
        if found is None:
            return None
        data, manifest = found
        there = self._folder_of(manifest, kind, digest)
        needed = sum(expected["size"] for expected in manifest["files"].values())
        if needed > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        for name, expected in manifest["files"].items():
            target = _inside(folder, name)
            try:
                copied = self._connection.download(f"{there}/{name}", target, expected["size"])
            except FileNotFoundError as error:
                raise DamagedError(f"{name} is missing") from error
            except TooLongError as error:
                raise DamagedError(f"{name} is longer than {expected['size']} bytes") from error
            if copied != (expected["size"], expected["checksum"]):
                raise DamagedError(f"the bytes of {name} were altered")
            if (problem := problem_of_format(target)) is not None:
                raise DamagedError(problem)
        for name in manifest["record"]:
            target = _inside(folder / RECORD, name)
            try:
                self._connection.download(f"{there}/{RECORD}/{name}", target, MOST_BYTES)
            except (FileNotFoundError, TooLongError):  # nothing depends on it
                target.unlink(missing_ok=True)
        (folder / MANIFEST).write_bytes(data)
        return manifest

    def push(self, kind: str, digest: str, folder: Path, *, replace: bool = False) -> None:
        """Copy a finished artifact there, unless a whole one exists.

        replace: copy even if a whole one seems to exist, because its bytes were found to be
        altered. Raises `StoreError` if refused; what was there before then stays.
        """
        try:
            data = (folder / MANIFEST).read_bytes()
            manifest = parse(data, kind, digest)
            self._connection.check()
            self.users.add(kind, digest, pushed=True)
            try:
                if self.has(kind, digest) and not replace:
                    return
            except DamagedError:
                replace = True
            self._upload(manifest, kind, digest, folder, replace=replace)
            path = self._path(kind, digest, MANIFEST)
            if replace or not self._connection.creates:
                self._connection.write(data, path)
            else:  # whoever was first is as good
                self._connection.create(data, path)
        except (DamagedError, OSError, StoreError) as error:
            raise StoreError(
                f"{kind} {digest} could not be pushed to {self.url}; it is kept in {folder}, and "
                f"pushed by the next run: {error}"
            ) from error

    def _upload(
        self, manifest: Mapping[str, Any], kind: str, digest: str, folder: Path, *, replace: bool
    ) -> None:
        there = self._path(kind, digest, content_of(manifest))
        self._connection.check_inside(there, self._path(kind))
        for name, expected in manifest["files"].items():
            size = None
            with suppress(FileNotFoundError):
                (size,) = self._connection.sizes([f"{there}/{name}"])
            if replace or size != expected["size"]:
                self._connection.upload(folder / name, f"{there}/{name}")
        for name in manifest["record"]:
            if (folder / RECORD / name).is_file():
                self._connection.upload(folder / RECORD / name, f"{there}/{RECORD}/{name}")
        self._compare_sizes(manifest, there)

    def _manifest(self, kind: str, digest: str) -> tuple[bytes, dict[str, Any]] | None:
        """The manifest at an address as it stands there, and what it says."""
        check_address(kind, digest)
        self._connection.check()
        try:
            data = self._connection.read(self._path(kind, digest, MANIFEST), MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(data) > MOST_BYTES:
            raise DamagedError(f"its manifest is longer than {MOST_BYTES} bytes")
        return data, parse(data, kind, digest)

    def _folder_of(self, manifest: Mapping[str, Any], kind: str, digest: str) -> str:
        """Where all files of a manifest stand, each in its size."""
        folder = self._path(kind, digest)
        of_content = f"{folder}/{content_of(manifest)}"
        try:
            self._compare_sizes(manifest, of_content)
        except DamagedError as damage:
            try:  # without a folder of their own, as they were kept before
                self._compare_sizes(manifest, folder)
            except DamagedError:
                raise damage from None
            return folder
        return of_content

    def _compare_sizes(self, manifest: Mapping[str, Any], folder: str) -> None:
        files = manifest["files"]
        try:
            sizes = self._connection.sizes([f"{folder}/{name}" for name in files])
        except FileNotFoundError as error:
            raise DamagedError("not all of its files are there") from error
        for (name, expected), size in zip(files.items(), sizes, strict=True):
            if size not in (None, expected["size"]):
                raise DamagedError(f"{name} has {size} bytes, not {expected['size']}")

    def _path(self, *parts: str) -> str:
        return self._connection.path("/".join(parts)).rstrip("/")


@dataclass(frozen=True)
class RemoteFolder:
    """Small files in a folder of the remote, as `claims.Place`."""

    connection: Connection
    folder: str

    def create(self, name: str, data: bytes) -> bool:
        return self.connection.create(data, self._path(name))

    def write(self, name: str, data: bytes) -> None:
        self.connection.write(data, self._path(name))

    def read(self, name: str) -> bytes | None:
        try:
            return self.connection.read(self._path(name), _MOST_BYTES_OF_SMALL_FILE)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Its files, from here on, sorted."""
        return sorted(self.connection.listing(self.connection.path(self.folder)))

    def remove(self, name: str) -> None:
        self.connection.remove(self._path(name))

    def _path(self, name: str) -> str:
        return self.connection.path(f"{self.folder}/{name}")


def _inside(folder: Path, name: str) -> Path:
    """The path of a file in `folder`, whose own folder is made; never one outside."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DamagedError(f"{name} leads out of its folder")
    return path
