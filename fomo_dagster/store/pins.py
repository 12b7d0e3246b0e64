"""Pins: the artifacts that running processes were told are there, which nobody may clean.

A process that finds an artifact first writes its address into a file of its own (`.pins/`), then
waits where somebody cleans at that moment (the lease `Places.gate`), and only then looks. Whoever
cleans holds that lease, and reads the pins before it reads what heads point to: a process writes
the head of what it made before it ends. So either the pin is seen, or the artifact is seen to be
gone before anyone relies on it.

A file of pins ends with its process, however that ends: the kernel's lock on it says so or, where
such locks do not hold among all machines, the process that is named in it. Where that cannot be
seen, its pins hold.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from fomo_dagster.errors import StoreError
from fomo_dagster.store import kernel_locks
from fomo_dagster.store.files import explained, skipped_where_refused
from fomo_dagster.store.kernel_locks import REFUSED
from fomo_dagster.store.leases import lease
from fomo_dagster.store.manifests import is_address
from fomo_dagster.store.owners import Owner, this_process
from fomo_dagster.store.places import Address, Places
from fomo_dagster.store.sharing import register

_FOLDER = ".pins"


class Pins:
    """What this process needs of the store at `root`."""

    def __init__(self, root: Path) -> None:
        self._places = Places(root)
        self._lock = threading.Lock()
        self._pinned: set[Address] = set()
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    def add(self, kind: str, digest: str) -> None:
        """Keep an artifact until this process ends; to be called before one looks for it. On a
        read-only disk nothing is written, and nothing can be cleaned."""
        with self._lock:
            if (kind, digest) in self._pinned:
                return
            with skipped_where_refused(), explained(self._places.root):
                if self._file is None:
                    self._open()
                assert self._file is not None
                self._file.write(f"{kind} {digest}\n".encode())
                self._file.flush()
        with skipped_where_refused():
            self._wait_for_cleaning()
            if self._file is not None:  # now, as other threads that look for it wait as well
                self._pinned.add((kind, digest))

    def _wait_for_cleaning(self) -> None:
        gate = self._places.gate
        if gate.exists():
            with lease(gate):  # removes the file of one who was killed, too
                pass

    def _open(self) -> None:
        folder = self._places.root / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        register(self._places.root)
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        begun = folder / f".{name}"
        file = begun.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
        file.write(json.dumps(asdict(this_process())).encode() + b"\n")
        file.flush()
        begun.rename(folder / name)
        self._file, self._path = file, folder / name
        with contextlib.suppress(StoreError):
            _files_of_living(self._places.root)  # so that those of the dead do not pile up

    def close(self) -> None:
        """Nothing is needed any more."""
        if self._file is not None and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """As in a process that was forked, and has pins of its own."""
        self._lock = threading.Lock()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = self._path = None
        self._pinned = set()

    @property
    def path(self) -> Path | None:
        """Its file."""
        return self._path


_of_roots: dict[Path, Pins] = {}
_lock = threading.Lock()


def pins_of(root: Path) -> Pins:
    """Those of this process at a store's folder."""
    with _lock:
        if root not in _of_roots:
            _of_roots[root] = Pins(root)
        return _of_roots[root]


def pinned(root: Path) -> Iterator[tuple[str, Address]]:
    """What processes other than this one need: (the process, the address). What processes left that
    have ended is removed."""
    for path, lines in _files_of_living(root):
        for line in lines[1:]:
            kind, _, digest = line.partition(" ")
            if is_address(kind, digest):
                yield path.name.rpartition("-")[0], (kind, digest)


def _files_of_living(root: Path) -> list[tuple[Path, list[str]]]:
    """The files of other processes that live, with their lines; the others' are removed."""
    own, found = pins_of(root).path, []
    for path in sorted((root / _FOLDER).glob("[!.]*")):
        if path == own:
            continue
        try:
            lines = path.read_text(errors="replace").splitlines()
            if not _has_ended(path, lines):
                found.append((path, lines))
                continue
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read ({error.strerror}), so nobody knows what that process "
                "needs: let this user read it, or wait until the process has ended"
            ) from error
        with contextlib.suppress(OSError):
            path.unlink()
    return found


def _has_ended(path: Path, lines: list[str]) -> bool:
    """Whether the process of a file of pins has."""
    if kernel_locks.hold_at(path.parent):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in REFUSED:
                    raise
    try:
        return Owner(**json.loads(lines[0])).is_gone() is True
    except (IndexError, ValueError, TypeError):
        return False


def _in_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for one in _of_roots.values():
        one.forget()


def _at_exit() -> None:
    for one in _of_roots.values():
        one.close()


os.register_at_fork(after_in_child=_in_fork)
atexit.register(_at_exit)
