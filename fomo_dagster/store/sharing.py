"""Homes that share the folder of a store, such as by a link to it.

A home whose `store` is a link or a mount registers itself in `.homes/` when it first uses the
store. So whoever cleans knows where to look for what the others need. What a shared store held
before the first home registered is kept: nobody knows who needs it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import write_bytes

_FOLDER = ".homes"


def is_shared(root: Path) -> bool:
    """Whether the folder of a home's store is elsewhere, where other homes may use it too."""
    return root.is_symlink() or os.path.ismount(root)


def register(root: Path) -> None:
    """Have the home with this store known to the others that share it."""
    path = _own(root)
    if is_shared(root) and not path.exists():
        said = {"home": str(root.parent), "host": socket.gethostname()}
        write_bytes(path, json.dumps(said).encode())


def others(root: Path) -> Iterator[Path]:
    """The other homes that share a store.

    Raises `StoreError` where one cannot be seen from here, so that nobody knows what it needs.
    """
    own, there = root.parent.resolve(), root.resolve()
    if there.name == "store" and there.parent != own and (there.parent / "heads").is_dir():
        yield there.parent  # its own store is no link
    for path in sorted((root / _FOLDER).glob("*.json")):
        if path.name == _own(root).name:
            continue
        try:
            said = json.loads(path.read_bytes())
            home, host = Path(said["home"]), str(said["host"])
        except (OSError, ValueError, KeyError, TypeError):
            home, host = Path("unknown"), "unknown"
        if home.resolve() == own:
            continue
        if not (home / "store").exists() or (home / "store").resolve() != there:
            raise StoreError(
                f"the store {there} is shared with the home {home} of the machine {host}, which "
                "cannot be seen from here, so nobody knows what it needs: clean where it can be "
                f"seen or, if that home is gone, remove {path}"
            )
        yield home


def known_since(root: Path) -> float:
    """Seconds since 1970, when the first of the homes that share a store became known; what is
    older may be needed by others. 0 where it is one home's own."""
    if not is_shared(root):
        return 0.0
    times = [path.stat().st_mtime for path in (root / _FOLDER).glob("*.json")]
    return min(times, default=float("inf"))


def _own(root: Path) -> Path:
    name = digest_of([str(root.parent.resolve()), socket.gethostname()])
    return root / _FOLDER / f"{name}.json"
