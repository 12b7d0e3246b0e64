"""The result of materialising an asset."""

from __future__ import annotations

from dataclasses import dataclass

from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.heads import Head


@dataclass(frozen=True)
class Outcome:
    """artifacts: none where they were cleaned and nothing is made from them, or are packed.
    computed: names of the artifacts made now; the others were hits. seconds: how long it took this
    time; the head says how long making took."""

    head: Head
    artifacts: dict[str, Artifact]
    computed: tuple[str, ...]
    seconds: float
