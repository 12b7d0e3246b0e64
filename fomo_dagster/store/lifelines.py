"""Files by which processes of one host see whether another lives.

It holds the kernel's lock on its file or, where the file system takes none, is named in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fomo_dagster.store.kernel_locks import REFUSED
from fomo_dagster.store.owners import Owner, this_process

_SECONDS_BETWEEN_LOOKS = 0.1


@contextlib.contextmanager
def living(path: Path) -> Iterator[None]:
    """Within it, this process is seen to live."""
    with path.open("w") as file:
        file.write(json.dumps(asdict(this_process())))
        file.flush()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
        yield
        file.truncate(0)


def has_ended(path: Path) -> bool:
    """Whether the process of a file has ended, or lives on and has left `living`."""
    try:
        file = path.open()
    except FileNotFoundError:
        return True
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            said = file.read()
            return not said or Owner(**json.loads(said)).is_gone() is True
        return True


def wait_for_end(path: Path, until: float | None = None) -> None:
    """Wait until a process has ended, or for `time.monotonic` to be `until`."""
    while not has_ended(path) and (until is None or time.monotonic() < until):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
