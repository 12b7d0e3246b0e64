"""Names that can be file names and asset keys."""

from __future__ import annotations

import re

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}")


def check_safe_name(name: str) -> str:
    """Return `name` if it can be a file name and a Dagster asset key; raise `ValueError` if not."""
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a safe name: use letters, digits and underscores (at most 100), "
            "a letter or digit first"
        )
    return name
