"""Signs of life from who launched work to who does it on another machine, where a kernel's locks
may mean nothing: a file in the folder that both see, written again and again.

No clocks are compared: who reads notices that the file changes.
"""

from __future__ import annotations

import time
from pathlib import Path

from fomo_dagster.store.files import write_bytes

HEARTBEAT = "FOMO_HEARTBEAT"  # the variable: whose signs to look for, and the longest silence
_FILE = "heartbeat"
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_OF_SILENCE = 180.0  # shared file systems show others' writes up to a minute late
_SECONDS_BETWEEN_LOOKS = 2.0


class Heart:
    """What whoever launched work in the folder `here` shows. token: no other launch has it."""

    def __init__(self, here: Path, token: str) -> None:
        self._path, self._token = here / _FILE, token
        self._count, self._next = 0, 0.0

    @property
    def variable(self) -> str:
        """The value of `HEARTBEAT` for those who look."""
        return f"{self._token} {SECONDS_OF_SILENCE}"

    def beat(self) -> None:
        """Show that this process lives, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_BEATS
            self._count += 1
            write_bytes(self._path, f"{self._token} {self._count}".encode())


def wait_for_silence(here: Path, variable: str) -> None:
    """Until the launcher has shown nothing for too long, or its folder is another's or gone."""
    token, _, seconds = variable.partition(" ")
    shown, until = b"", time.monotonic() + float(seconds)
    while time.monotonic() < until:
        try:
            now = (here / _FILE).read_bytes()
        except FileNotFoundError:
            return
        except OSError:  # a file system that does not answer is silent
            now = shown
        if not now.startswith(token.encode() + b" "):
            return
        if now != shown:
            shown, until = now, time.monotonic() + float(seconds)
        time.sleep(min(_SECONDS_BETWEEN_LOOKS, float(seconds) / 10))
