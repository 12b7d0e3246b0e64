"""Leases: at most one process makes a thing while the others wait. A dead holder holds nothing.

A slot is a lease on any one of several files: as many processes can hold one as there are files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fomo_dagster.store.files import explained

_SECONDS_BETWEEN_LOOKS = 0.05
_held: set[int] = set()


@contextlib.contextmanager
def lease(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[bool]:
    """Hold the lease at `path`, waiting while another thread or process holds it; returns whether
    that took waiting.

    The lease is a file lock of the kernel, so it ends with its holder, however that ends. If the
    lease is not free at once, `waiting` is called once with the holder's process number. Raises
    `StoreError` if the disk refuses.
    """
    waited = told = False
    while (descriptor := _take(path, str(os.getpid()))) is None:
        waited = True
        # A holder locks first and then writes its note: it is asked again where there is none yet.
        if waiting is not None and not told and (note := _note(path)):
            waiting(note)
            told = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    with _holding(path, descriptor):
        yield waited


@contextlib.contextmanager
def slot(
    paths: Sequence[Path], note: str, waiting: Callable[[Sequence[str]], None]
) -> Iterator[bool]:
    """Hold one of the leases at `paths`, whichever is free first, with a note of who holds it;
    returns whether that took waiting.

    First come, first served, or nearly so: only the first of the queue looks for a free lease.
    `waiting` is called with the notes of the holders, whenever these change.
    """
    told: list[str] = []

    def tell(_: str = "") -> None:
        nonlocal told
        notes = [found for path in paths if (found := _note(path))]
        if notes and notes != told:
            told = notes
            waiting(notes)

    with contextlib.ExitStack() as stack:
        with lease(paths[0].with_name("queue"), tell) as waited:
            while (taken := _take_any(paths, note)) is None:
                waited = True
                tell()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            stack.enter_context(_holding(*taken))
        yield waited


def _take_any(paths: Sequence[Path], note: str) -> tuple[Path, int] | None:
    for path in paths:
        descriptor = _take(path, note)
        if descriptor is not None:
            return path, descriptor
    return None


def _take(path: Path, note: str) -> int | None:
    """Take the lease at a path, if it is free: the descriptor that holds it."""
    while True:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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


@contextlib.contextmanager
def _holding(path: Path, descriptor: int) -> Iterator[None]:
    """Within it a lease that was taken is held."""
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a process that was forked meanwhile
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
