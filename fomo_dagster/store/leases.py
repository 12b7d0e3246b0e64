"""Leases: at most one process makes a thing; the others wait, and a dead holder holds nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fomo_dagster.store.files import explained


@contextlib.contextmanager
def lease(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lease at `path`, waiting while another thread or process holds it.

    The kernel's file lock is the lease, so it ends with its holder, however that ends. `waiting` is
    told once, with the holder's process number, when the lease is not free at once. Raises
    `StoreError` where the disk refuses.
    """
    told = False
    while True:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if waiting is not None and not told:
                        waiting(os.pread(descriptor, 100, 0).decode(errors="replace") or "unknown")
                        told = True
                    time.sleep(0.05)
            # The file may have been removed by its last holder between our open and our lock.
            if not _is_file_at(descriptor, path):
                continue
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            return
        finally:
            os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
