"""Leases by locks of the kernel, which end with their holder, however that ends.

They hold where the file system takes such locks and all machines that share it see each other's.
FOMO_LOCKS says which: `kernel` or `heartbeat` (see `claims`). By default the kernel is asked what
the file system is, and then for a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.store.files import explained

LOCKS = "FOMO_LOCKS"
REFUSED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # where there are no locks
_MOUNTS = Path("/proc/self/mountinfo")
# A lock on these may hold on one machine alone, whatever they answer; `fuse.` begins many more.
_ONE_MACHINE = {
    "fuse", "9p", "virtiofs", "vboxsf", "prl_fs", "cifs", "smb3", "smbfs", "beegfs", "afs",
    "orangefs", "pvfs2",
}  # fmt: skip
_LOCAL_OPTIONS = {"nolock", "local_lock=flock", "local_lock=all", "localflock"}

_held: set[int] = set()
_without: set[Path] = set()  # folders whose file system refused


def hold_at(folder: Path) -> bool:
    """Whether leases in a folder are locks of the kernel."""
    named = os.environ.get(LOCKS, "").strip()
    if named not in ("", "kernel", "heartbeat"):
        raise InputError(f"{LOCKS} is {named!r}: expected kernel or heartbeat")
    return named == "kernel" or (named == "" and folder not in _without and _can_hold(folder))


@cache
def _can_hold(folder: Path) -> bool:
    try:
        mounts = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return True
    kind, options = _mount_of(folder.resolve(), mounts)
    if kind in _ONE_MACHINE or kind.startswith("fuse."):
        return False
    return not options & _LOCAL_OPTIONS


def _mount_of(path: Path, mounts: Iterable[str]) -> tuple[str, set[str]]:
    """The type and the options of the file system that a path is on, of the lines of mountinfo."""
    found, longest = ("", set[str]()), 0
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        at = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4]))
        # of several that are mounted at one place the last covers the others
        if path.is_relative_to(at) and len(at.parts) >= longest:
            kind, *others = rest.split()
            options = {*fields.split()[5].split(","), *others[-1].split(",")}
            found, longest = (kind, options), len(at.parts)
    return found


class RefusedError(Exception):
    """The file system takes no locks."""


class KernelLock:
    """A lease at a path. shared: any user of this machine may hold it, whoever made its file."""

    seconds_between_looks = 0.05

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._path, self._shared = path, shared

    def take(self, note: str) -> HeldLock | None:
        """Hold it, if it is free. Raises `RefusedError` where there are no locks."""
        while True:
            with explained(self._path):
                descriptor = _open_shared(self._path) if self._shared else _open(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed the file between our open and our lock.
                if _is_file_at(descriptor, self._path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, note.encode(), 0)
                    _held.add(descriptor)
                    return HeldLock(self._path, descriptor, shared=self._shared)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError as error:
                os.close(descriptor)
                if error.errno in REFUSED:
                    _without.add(self._path.parent)
                    with contextlib.suppress(OSError):
                        self._path.unlink()
                    raise RefusedError from error
                raise
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def note(self) -> str:
        """What its holder says of itself; empty if nobody holds it, or in that moment."""
        try:
            return self._path.read_bytes()[:1000].decode(errors="replace")
        except OSError:
            return ""


class HeldLock:
    """A lease that is held."""

    def __init__(self, path: Path, descriptor: int, *, shared: bool) -> None:
        self._path, self._descriptor, self._shared = path, descriptor, shared

    robbed = False  # never, while this process lives

    def is_robbed(self) -> bool:
        """As `robbed`."""
        return self.robbed

    def release(self) -> None:
        """Give it back."""
        if self._descriptor not in _held:  # this is a process that was forked meanwhile
            return
        if self._shared:  # its file may be another user's
            os.ftruncate(self._descriptor, 0)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        _held.remove(self._descriptor)
        os.close(self._descriptor)


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
