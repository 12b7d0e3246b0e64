"""What stages that start from a release started from, told to the other homes of a remote.

It was decided once, by what was live then, and no declaration tells it: a home that asked anew
would train all of them again, from what is live by now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fomo_dagster.store.heads import Head
from fomo_dagster.store.remotes import Remote

KIND = "live_start"
_FOLDER = ".starts"


def share_start(head: Head, remote: Remote | None) -> None:
    """Tell of an asset of this kind. Raises `StoreError` where that is refused."""
    if remote is not None:
        data = json.dumps(dict(head.facts), sort_keys=True).encode()
        remote.folder(_FOLDER).write(f"{head.asset}.json", data)


def shared_starts(remote: Remote | None) -> frozenset[str]:
    """The assets that other homes told of."""
    names = [] if remote is None else remote.folder(_FOLDER).names()
    return frozenset(name.removesuffix(".json") for name in names)


def shared_start(asset: str, remote: Remote) -> Mapping[str, Any] | None:
    """The facts that another home had of it; None if it told none, or they cannot be read."""
    data = remote.folder(_FOLDER).read(f"{asset}.json")
    try:
        told = {} if data is None else json.loads(data)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "checkpoint" in told else None
