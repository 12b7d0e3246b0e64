"""Keeps memory that a step freed for the next step.

The C library gives large blocks back to the system as they are freed, and takes them again a
moment later, page by page: with two trainings on two cores that was 6 % of their time.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAPPED_BLOCKS = -1, -4  # of mallopt(3)
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """For the rest of this process; where the C library is not glibc, nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAPPED_BLOCKS, 0)  # the threshold of size has a limit, 32 MiB, and this has none
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
