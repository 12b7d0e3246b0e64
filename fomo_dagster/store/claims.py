"""Claims: leases by files alone, for where no kernel's lock holds among all machines.

Only one thing is asked of the place: that of several who create the same file, one succeeds. A
claim is a chain of such files. The first is `<name>`; the one that follows a link with token T is
`<name>.after-T`. Whoever created the end of the chain holds the claim, so at no moment do two. A
holder gives back by adding a free link, which nobody follows, and then removes the chain.

A holder counts up in `<name>.beat-T` from time to time. One that is gone is taken over at once
where its process can be seen, and elsewhere once its count has stood still for as long as it
promised, in the time of whoever waits: no two clocks are ever compared. A holder that was stopped
meanwhile finds that it was robbed, and must leave what it held to the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.files import explained
from fomo_dagster.store.owners import Owner, this_process

PATIENCE = "FOMO_LEASE_SECONDS"
_PATIENCE_SECONDS = 60.0  # without a beat, until a holder that cannot be seen counts as dead
_BEATS = 6  # in that time
_SECONDS_FOR_LAST_BEAT = 10.0  # and to remove its file
_UNREADABLE = "unreadable"  # the token of a link that nobody finished writing


class RobbedError(Exception):
    """A holder stood still for so long that another took over what it held."""


class Place(Protocol):
    """Small files in one folder, wherever that is. Each method may raise `StoreError`."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; whether this did."""

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file."""

    def read(self, name: str) -> bytes | None:
        """What is in a file; None if there is none."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


@dataclass(frozen=True)
class Folder:
    """A folder of a file system. shared: any user of this machine may hold what is in it."""

    path: Path
    shared: bool = False

    def create(self, name: str, data: bytes) -> bool:
        with explained(self.path / name):
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
                if self.shared:
                    self.path.chmod(0o1777)
            try:
                with (self.path / name).open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
            return True

    def write(self, name: str, data: bytes) -> None:
        with explained(self.path / name):
            (self.path / name).write_bytes(data)

    def read(self, name: str) -> bytes | None:
        # By opening it: a network's file system then asks its server, where `stat` may not.
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path / name} cannot be read ({error.strerror})") from error

    def remove(self, name: str) -> None:
        with explained(self.path / name):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Link:
    """A link of a chain. note: what its holder says of itself. owner: None where it is free, or
    where nobody could be made out. patience: seconds without a beat until it counts as dead."""

    name: str
    token: str
    note: str
    owner: Owner | None
    patience: float
    free: bool = False

    @classmethod
    def parse(cls, name: str, data: bytes) -> _Link:
        try:
            said: Mapping[str, Any] = json.loads(data)
            owner = Owner(**said["owner"]) if said["owner"] else None
            token, note, patience = str(said["token"]), str(said["note"]), float(said["patience"])
            return cls(name, token, note, owner, patience, said["free"] is True)
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls(name, _UNREADABLE, "", None, _PATIENCE_SECONDS)

    def data(self) -> bytes:
        said = {name: value for name, value in asdict(self).items() if name != "name"}
        return json.dumps(said).encode()


class Claim:
    """A lease at `name` in a place. One object is one that waits for it, and looks from time to
    time."""

    def __init__(self, place: Place, name: str, seconds_between_looks: float = 0.2) -> None:
        self._place, self._name = place, name
        self.seconds_between_looks = seconds_between_looks
        self._seen: tuple[str, bytes | None] = ("", None)
        self._looked_at = self._still = 0.0
        self._has_looked = False

    def take(self, note: str) -> HeldClaim | None:
        """Hold it, if it is free or its holder is dead."""
        # At first without a look, which is one more question to a remote.
        chain = self.chain() if self._has_looked else []
        link = self._follow(chain, note) if not chain else None
        if not self._has_looked and link is None:
            chain = self.chain()
        self._has_looked = True
        if chain and self._is_dead(chain[-1]):
            link = self._follow(chain, note)
        if link is None:
            return None
        if not chain:
            return HeldClaim(self, self._place, [link])
        chain = self.chain()
        if chain and chain[-1].token == link.token:
            return HeldClaim(self, self._place, chain)
        # Robbed already, or it follows what was given back meanwhile: then nothing leads to it.
        if all(other.token != link.token for other in chain):
            self._place.remove(link.name)
        return None

    def _follow(self, chain: list[_Link], note: str) -> _Link | None:
        """Add a link to a chain; None if another did."""
        name = self.after(chain[-1].token) if chain else self._name
        link = _Link(name, uuid.uuid4().hex, note, this_process(), patience())
        # It may be ours although one was there: where an answer was lost and it was asked again.
        return link if self._place.create(name, link.data()) or self.holds(link) else None

    def note(self) -> str:
        """What its holder says of itself; empty if nobody holds it."""
        chain = self.chain()
        return chain[-1].note if chain and not chain[-1].free else ""

    def after(self, token: str) -> str:
        """The name of the link that follows one."""
        return f"{self._name}.after-{token}"

    def beat(self, token: str) -> str:
        """The name of the file in which the holder of a link counts."""
        return f"{self._name}.beat-{token}"

    def chain(self) -> list[_Link]:
        """The links, from the first."""
        chain: list[_Link] = []
        name = self._name
        while (data := self._place.read(name)) is not None:
            chain.append(_Link.parse(name, data))
            name = self.after(chain[-1].token)
        return chain

    def holds(self, link: _Link) -> bool:
        """Whether a link is still there."""
        data = self._place.read(link.name)
        return data is not None and _Link.parse(link.name, data).token == link.token

    def _is_dead(self, link: _Link) -> bool:
        gone = link.owner.is_gone() if link.owner is not None else None
        # Of a free link, whoever left it may live on: it was refused to remove the chain.
        if gone or (gone is False and not link.free):
            return gone
        seen = link.token, self._place.read(self.beat(link.token))
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._looked_at, self._still = seen, now, 0.0
            return False
        # Time in which nobody looked, as when this machine slept, says little of the other.
        self._still += min(now - self._looked_at, link.patience / _BEATS)
        self._looked_at = now
        return self._still >= link.patience


class HeldClaim:
    """A claim that is held, whose holder beats. chain: up to its own link."""

    def __init__(self, claim: Claim, place: Place, chain: list[_Link]) -> None:
        self._claim, self._place, self._chain, self._own = claim, place, chain, chain[-1]
        self._process = os.getpid()
        self.robbed = False
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def is_robbed(self) -> bool:
        """Whether another has taken it over. Raises `StoreError` if that cannot be asked."""
        if not self.robbed:
            chain = self._claim.chain()
            self.robbed = not chain or chain[-1].token != self._own.token
        return self.robbed

    def release(self) -> None:
        """Give it back. Where that fails it ends as that of a dead holder."""
        if os.getpid() != self._process:  # forked meanwhile
            return
        self._ended.set()
        self._beating.join(_SECONDS_FOR_LAST_BEAT)
        free = _Link(
            self._claim.after(self._own.token), uuid.uuid4().hex, "", self._own.owner,
            self._own.patience, free=True,
        )  # fmt: skip
        with contextlib.suppress(StoreError):
            is_own = not self.robbed and self._claim.holds(self._own)
            if not (is_own and self._place.create(free.name, free.data())):
                return  # who took it over removes the chain
            for link in (*self._chain, free):
                self._place.remove(link.name)
            for link in self._chain[:-1]:
                self._place.remove(self._claim.beat(link.token))

    def _beat(self) -> None:
        number, name = 0, self._claim.beat(self._own.token)
        while not self._ended.wait(self._own.patience / _BEATS):
            with contextlib.suppress(StoreError):  # the next may succeed
                if self.is_robbed():
                    break
                number += 1
                self._place.write(name, str(number).encode())
        if number:
            with contextlib.suppress(StoreError):
                self._place.remove(name)


def patience() -> float:
    """FOMO_LEASE_SECONDS: how long the beats of this process may stand still."""
    named = os.environ.get(PATIENCE, "").strip()
    try:
        seconds = float(named or _PATIENCE_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 86400.0:
        raise InputError(f"{PATIENCE} is {named!r}: expected seconds, from 1 to 86400")
    return seconds
