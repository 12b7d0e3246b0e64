"""Which homes use what is on a remote, so that nobody removes what another needs.

`.users/<kind>-<digest>/<home>` says that a home was told that an artifact is there, or pushed it;
`.users/<kind>-<digest>/pushed` that whoever pushed it says such things. What has no such file was
pushed by an older version, and stays.

A home writes its file, waits where somebody cleans at that moment (the claim `cleaning`), and only
then looks for the artifact. Whoever cleans holds that claim, and reads the files under it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fomo_dagster.errors import StoreError
from fomo_dagster.progress import ignore_text
from fomo_dagster.store.claims import Claim, Place
from fomo_dagster.store.connections import Connection
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.leases import Lease, holding, lease
from fomo_dagster.store.manifests import MANIFEST, is_address
from fomo_dagster.store.places import Address

_FOLDER = ".users"
_PUSHED = "pushed"
_GATE = "cleaning"
_SECONDS_BETWEEN_LOOKS = 0.5

logger = logging.getLogger(__name__)


class HomeName:
    """The name of a home among those that share a remote, which it keeps in a file of its own.

    A copy of a home at another path has another name.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    @cached_property
    def text(self) -> str:
        """32 hexadecimal digits; made when it is first asked for. Raises `StoreError` where it can
        not be written."""
        path = self._home / "name"
        if not path.exists():
            with lease(self._home / "leases" / "name"):
                if not path.exists():
                    write_bytes(path, uuid.uuid4().hex.encode())
        return digest_of([path.read_text(), str(self._home.resolve())])


@dataclass
class Users:
    """The homes that use a remote, as one of them sees it. home: None: it is none."""

    connection: Connection
    place: Place
    home: HomeName | None
    _told: set[Address] = field(default_factory=set)
    _may_write: bool = True

    @property
    def name(self) -> str:
        """That of this home; empty where it is none, or has none as its disk is read-only."""
        try:
            return self.home.text if self.home is not None else ""
        except StoreError:
            return ""

    def add(self, kind: str, digest: str, *, pushed: bool = False) -> None:
        """Say that this home uses an artifact, before it looks for it. Where it may not write
        there, nothing is said."""
        if self.home is None or not self._may_write or not self.connection.is_writable_kind:
            return
        if (kind, digest) in self._told and not pushed:
            return
        self.connection.check()
        try:
            if (kind, digest) not in self._told:
                self.connection.write(b"", self._path(kind, digest, self.home.text))
                self._told.add((kind, digest))
            if pushed:
                self.connection.write(b"", self._path(kind, digest, _PUSHED))
            self._wait_for_cleaning()
        except StoreError as error:
            if pushed:
                raise
            self._may_write = False
            logger.info("what is used of %s is not said there: %s", self.connection.url, error)

    def _wait_for_cleaning(self) -> None:
        if self.place.read(_GATE) is not None:
            with self.gate():
                pass

    def gate(self, waiting: Callable[[str], None] | None = None) -> AbstractContextManager[Lease]:
        """What is held by whoever removes something there."""
        return holding(Claim(self.place, _GATE, _SECONDS_BETWEEN_LOOKS), waiting)

    def of_artifacts(self, only: Iterable[Address] | None = None) -> dict[Address, set[str]]:
        """The homes that use each artifact, of those that were pushed by a home that says so.
        only: of these alone."""
        if only is None:
            names = list(self.connection.listing(self.connection.path(_FOLDER)))
        else:
            folders = {"-".join(address) for address in only}
            names = [
                f"{folder}/{name}"
                for folder in folders
                for name in self.connection.listing(self.connection.path(f"{_FOLDER}/{folder}"))
            ]
        found: dict[Address, set[str]] = {}
        for name in names:
            address, _, user = name.rpartition("/")
            kind, _, digest = address.rpartition("-")
            if is_address(kind, digest):
                found.setdefault((kind, digest), set()).add(user)
        return {a: users - {_PUSHED} for a, users in found.items() if _PUSHED in users}

    def used(self) -> list[Address]:
        """What this home uses."""
        return [a for a, users in self.of_artifacts().items() if self.name in users]

    def give_up(
        self,
        needs: Callable[[Address], bool],
        only: Collection[Address] | None = None,
        waiting: Callable[[str], None] = ignore_text,
    ) -> list[Address]:
        """Have what no home needs removed; what that is.

        needs: whether this one still needs an artifact. only: nothing but these. A manifest goes
        first, so that an artifact is whole or not there. What a process left that was killed within
        goes as well.
        """
        if self.home is None:
            return []
        own, path = self.name, self.connection.path
        with self.gate(waiting):
            users = self.of_artifacts(only)
            dropped = [a for a, by in users.items() if own in by and not needs(a)]
            self.connection.remove_all([self._path(*a, own) for a in dropped])
            self._told.difference_update(dropped)
            unused = [a for a, by in users.items() if not by - ({own} if a in dropped else set())]
            self.connection.remove_all([path("/".join((*a, MANIFEST))) for a in unused])
            for address in unused:
                self.connection.remove_below(path("/".join(address)))
                self.connection.remove(self._path(*address, _PUSHED))
        return unused

    def forget(self, home: str) -> int:
        """A home is gone, and needs nothing any more; how much it used."""
        used = [a for a, users in self.of_artifacts().items() if home in users]
        self.connection.remove_all([self._path(*a, home) for a in used])
        return len(used)

    def _path(self, kind: str, digest: str, user: str) -> str:
        return self.connection.path(f"{_FOLDER}/{kind}-{digest}/{user}")
