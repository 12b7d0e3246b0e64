"""Leases: at most one process makes a thing while the others wait. A dead holder holds nothing.

There are two ways to hold one: by a lock of the kernel or, where those do not hold among all
machines, by a claim that beats. A slot is a lease on any one of several files: as many processes
can hold one as there are files.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fomo_dagster.stopping import check
from fomo_dagster.store import kernel_locks
from fomo_dagster.store.claims import Claim, Folder
from fomo_dagster.store.kernel_locks import KernelLock, RefusedError
from fomo_dagster.store.owners import this_process

_SECONDS_BETWEEN_CHECKS = 0.05


class Held(Protocol):
    """What is held until it is given back."""

    @property
    def robbed(self) -> bool:
        """What `is_robbed` was when it was last asked, as each beat asks it."""

    def is_robbed(self) -> bool:
        """Whether another took it over, as it can where this process stood still for long: what was
        made meanwhile must then be dropped. Raises `StoreError` if that cannot be asked."""

    def release(self) -> None:
        """Give it back."""


class Lock(Protocol):
    """What is held by one at a time."""

    @property
    def seconds_between_looks(self) -> float:
        """Of one that waits for it."""

    def take(self, note: str) -> Held | None:
        """Hold it, if it is free."""

    def note(self) -> str:
        """What its holder says of itself; empty if that is not known."""


class Turn(Protocol):
    """A place in the queue of a process."""

    def is_next(self) -> bool:
        """Whether nothing else of the process goes first."""

    def wait(self) -> None:
        """Wait until that, or what is free, may have changed."""


class _AnyTurn:
    """The place of what waits for none of its process."""

    def is_next(self) -> bool:
        return True

    def wait(self) -> None:
        time.sleep(_SECONDS_BETWEEN_CHECKS)


@dataclass(frozen=True)
class Lease:
    """One that was taken, and whether that took waiting."""

    held: Held
    waited: bool


@dataclass(frozen=True)
class Slots:
    """The leases that were taken, and whether that took waiting."""

    paths: tuple[Path, ...]
    waited: bool


@contextlib.contextmanager
def lease(
    path: Path, waiting: Callable[[str], None] | None = None, *, shared: bool = False
) -> Iterator[Lease]:
    """Hold the lease at `path`, waiting while another thread or process holds it.

    shared: any user of this machine may hold it, whoever made its file. If the lease is not free at
    once, `waiting` is called once with the holder's process number, and its host if that is
    another. Raises `StoreError` if the disk refuses.
    """
    with holding(_AtPath(path, shared=shared), waiting) as taken:
        yield taken


@contextlib.contextmanager
def holding(lock: Lock, waiting: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """As `lease`, of any lock."""
    waited = told = False
    owner = this_process()
    while (held := lock.take(f"{owner.process}@{owner.host}")) is None:
        waited = True
        # A holder locks first and then writes its note: it is asked again where there is none yet.
        if waiting is not None and not told and (note := lock.note()):
            waiting(_holder(note))
            told = True
        _pause(lock.seconds_between_looks)
    try:
        yield Lease(held, waited)
    finally:
        held.release()


@contextlib.contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold the lease at `path`, if nobody else does; whether it is held."""
    owner = this_process()
    held = _AtPath(path, shared=False).take(f"{owner.process}@{owner.host}")
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release()


@contextlib.contextmanager
def slots(
    paths: Sequence[Path],
    note: str,
    waiting: Callable[[Sequence[str]], None],
    *,
    count: int = 1,
    shared: bool = False,
    turn: Turn | None = None,
) -> Iterator[Slots]:
    """Hold `count` of the leases at `paths`, whichever are free first, with a note of who holds
    them.

    First come, first served, or nearly so: only the first of the queue looks for free leases, and
    keeps what it finds until it has all. `waiting` is called with the notes of the holders,
    whenever these change. turn: among those of this process that want one; where another goes
    first, the place in the queue is given up.
    """
    turn = turn or _AnyTurn()
    told: list[str] = []
    taken: dict[Path, Held] = {}
    locks = {path: _AtPath(path, shared=shared) for path in paths}

    def tell(_: str = "") -> None:
        nonlocal told
        others = [lock for path, lock in locks.items() if path not in taken]
        notes = list(dict.fromkeys(found for lock in others if (found := lock.note())))
        if notes and notes != told:
            told = notes
            waiting(notes)

    waited = False
    with contextlib.ExitStack() as held:
        while len(taken) < count:
            if not turn.is_next():
                waited = True
                turn.wait()
                check()
                continue
            with lease(paths[0].with_name("queue"), tell, shared=shared) as queued:
                waited |= queued.waited
                while turn.is_next():
                    for path, lock in locks.items():
                        if len(taken) < count and path not in taken:
                            found = lock.take(note)
                            if found is not None:
                                held.callback(found.release)
                                taken[path] = found
                    if len(taken) == count:
                        break
                    waited = True
                    tell()
                    turn.wait()
                    check()
                else:
                    held.close()
                    taken.clear()
        yield Slots(tuple(taken), waited)


class _AtPath:
    """The lease at a path, held in the way that its file system allows."""

    def __init__(self, path: Path, *, shared: bool) -> None:
        self._path = path
        self._shared = shared
        self._lock: Lock = self._claim()
        if kernel_locks.hold_at(path.parent):
            self._lock = KernelLock(path, shared=shared)

    def _claim(self) -> Lock:
        return Claim(Folder(self._path.parent, shared=self._shared), self._path.name)

    @property
    def seconds_between_looks(self) -> float:
        return self._lock.seconds_between_looks

    def take(self, note: str) -> Held | None:
        try:
            return self._lock.take(note)
        except RefusedError:
            self._lock = self._claim()
            return self._lock.take(note)

    def note(self) -> str:
        return self._lock.note()


def _holder(note: str) -> str:
    """What a person reads of a holder: its process number, and its host if that is another."""
    process, _, host = note.partition("@")
    return f"{process} on {host}" if host and host != socket.gethostname() else process


def _pause(seconds: float) -> None:
    """Until the next look. Raises `KeyboardInterrupt` where this work was asked to stop."""
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SECONDS_BETWEEN_CHECKS))
        check()
