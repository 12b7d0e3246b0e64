"""Who holds something: a process of a host, as others can recognise it and see that it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Owner:
    """A process.

    host: its name, for people. kernel: what only processes that see the same process numbers have
    in common; empty where that is not known. started: tells it from a later one of its number.
    """

    host: str
    kernel: str
    process: int
    started: str

    def is_gone(self) -> bool | None:
        """Whether it has ended; None if that cannot be seen from here, as of another host."""
        if not self.kernel or self.kernel != _kernel():
            return None
        started = _started(self.process)
        return None if started is None else started != self.started

    def __str__(self) -> str:
        """Its process number and, where it is on another host, that."""
        elsewhere = f" on {self.host}" if self.host != socket.gethostname() else ""
        return f"{self.process}{elsewhere}"


def this_process() -> Owner:
    """This process, as others see it."""
    process = os.getpid()
    return Owner(socket.gethostname(), _kernel(), process, _started(process) or "")


@cache
def _kernel() -> str:
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink(_PROCESSES)}"
    except OSError:  # not Linux; a host without containers has one set of process numbers
        return "" if _BOOT.parent.is_dir() else socket.gethostname()


def _started(process: int) -> str | None:
    """When a process began, as nothing but its kernel counts it; empty if it has ended, None if
    this user may not see."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    try:
        if not _BOOT.parent.is_dir():
            found = psutil.Process(process)
            return "" if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
        # What follows the name, which stands in parentheses and may hold any. Not psutil's time,
        # which is counted from that of the boot, and moves when the clock is set.
        state, *others = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        return "" if state in "ZX" else others[18]
    except (OSError, psutil.Error):
        return None
