"""Where damaged artifacts go: out of the way, and not lost."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from fomo_dagster.store.places import Places

logger = logging.getLogger(__name__)


def set_aside(places: Places, kind: str, digest: str, folder: Path, problem: str) -> None:
    """Move a folder of an artifact away, whole or packed, and say what is the matter with it."""
    aside = places.damaged / f"{kind}-{digest}-{time.time_ns()}"
    moved = "It was moved to {} and will be made again"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
    except FileNotFoundError:  # another process set it aside first
        return
    except OSError as error:
        moved = f"It cannot be moved away ({error.strerror}) and counts as missing"
    logger.warning(
        "%s %s in the store is damaged: %s. %s.", kind, digest, problem, moved.format(aside)
    )
