"""Python's search for garbage, left out where much is made that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage within: a graph of thousands of assets holds none, and looking through
    it again and again as it grows takes a third of the time. Memory is freed as ever where nothing
    refers to itself.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
