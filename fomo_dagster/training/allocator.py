"""Keeps memory that a step freed for the next step.

The C library gives large blocks back to the system as they are freed, and takes them again a
moment later, page by page: with two trainings on two cores that was 6 % of their time.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_BLOCK = 32 * 2**20  # above which glibc allows no other way
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """For the rest of this process; where the C library is not glibc, nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
