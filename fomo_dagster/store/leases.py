"""Leases: at most one process makes a thing while the others wait. A dead holder holds nothing.

A slot is a lease on any one of several files: as many processes can hold one as there are files.
A shared lease may be held by any user of this machine, whoever made its file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.stopping import check
from fomo_dagster.store.files import explained

_SECONDS_BETWEEN_LOOKS = 0.05
_held: set[int] = set()


@dataclass(frozen=True)
class Slots:
    """The leases that were taken, and whether that took waiting."""

    paths: tuple[Path, ...]
    waited: bool


@contextlib.contextmanager
def lease(
    path: Path, waiting: Callable[[str], None] | None = None, *, shared: bool = False
) -> Iterator[bool]:
    """Hold the lease at `path`, waiting while another thread or process holds it; returns whether
    that took waiting.

    The lease is a file lock of the kernel, so it ends with its holder, however that ends. If the
    lease is not free at once, `waiting` is called once with the holder's process number. Raises
    `StoreError` if the disk refuses.
    """
    waited = told = False
    while (descriptor := _take(path, str(os.getpid()), shared)) is None:
        waited = True
        # A holder locks first and then writes its note: it is asked again where there is none yet.
        if waiting is not None and not told and (note := _note(path)):
            waiting(note)
            told = True
        _pause()
    with _holding(path, descriptor, shared):
        yield waited


@contextlib.contextmanager
def slots(
    paths: Sequence[Path],
    note: str,
    waiting: Callable[[Sequence[str]], None],
    *,
    count: int = 1,
    shared: bool = False,
    goes_first: Callable[[], bool] = lambda: True,
) -> Iterator[Slots]:
    """Hold `count` of the leases at `paths`, whichever are free first, with a note of who holds
    them.

    First come, first served, or nearly so: only the first of the queue looks for free leases, and
    keeps what it finds until it has all. `waiting` is called with the notes of the holders,
    whenever these change. goes_first: whether nothing else of this process wants one more; where it
    does, the place in the queue is given up.
    """
    told: list[str] = []
    taken: dict[Path, int] = {}

    def tell(_: str = "") -> None:
        nonlocal told
        others = [path for path in paths if path not in taken]
        notes = list(dict.fromkeys(found for path in others if (found := _note(path))))
        if notes and notes != told:
            told = notes
            waiting(notes)

    waited = False
    with contextlib.ExitStack() as held:
        while len(taken) < count:
            if not goes_first():
                waited = True
                _pause()
                continue
            with lease(paths[0].with_name("queue"), tell, shared=shared) as queued:
                waited |= queued
                while goes_first():
                    for path in paths:
                        if len(taken) < count and path not in taken:
                            descriptor = _take(path, note, shared)
                            if descriptor is not None:
                                held.enter_context(_holding(path, descriptor, shared))
                                taken[path] = descriptor
                    if len(taken) == count:
                        break
                    waited = True
                    tell()
                    _pause()
                else:
                    held.close()
                    taken.clear()
        yield Slots(tuple(taken), waited)


def _pause() -> None:
    """Until the next look. Raises `KeyboardInterrupt` where this work was asked to stop."""
    check()
    time.sleep(_SECONDS_BETWEEN_LOOKS)


def _take(path: Path, note: str, shared: bool) -> int | None:
    """Take the lease at a path, if it is free: the descriptor that holds it."""
    while True:
        with explained(path):
            descriptor = _open_shared(path) if shared else _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been removed by its last holder between our open and our lock.
            if _is_file_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, note.encode(), 0)
                _held.add(descriptor)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _open_shared(path: Path) -> int:
    """As `_open`, for all users: in a folder where each may remove their own files alone, Linux
    refuses to create what is there."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o1777)
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # made by another since
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    os.fchmod(descriptor, 0o666)  # whatever the umask
    return descriptor


@contextlib.contextmanager
def _holding(path: Path, descriptor: int, shared: bool) -> Iterator[None]:
    """Within it a lease that was taken is held."""
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a process that was forked meanwhile
            if shared:  # its file may be another user's
                os.ftruncate(descriptor, 0)
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            _held.remove(descriptor)
            os.close(descriptor)


def _note(path: Path) -> str:
    """What the holder of a lease says of itself; empty if nobody holds it, or in that moment."""
    try:
        return path.read_bytes()[:1000].decode(errors="replace")
    except OSError:
        return ""


def _let_go() -> None:
    """In a process that was forked: it holds nothing, and may outlive the one that does."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
