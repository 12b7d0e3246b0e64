"""Whether a dataset's images are on this machine, as each source reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fomo_dagster.data.benchmark.registry import BenchmarkDataset

State = Literal["present", "on demand", "incomplete", "missing"]

NO_RELEASE = "no release"  # the note where there is no copy of the benchmark's


@dataclass(frozen=True)
class Presence:
    """place: where the images are, or would be. note: what is missing, in a few words.

    "On demand" is what is rendered, or downloaded by its source when it is first used.
    """

    state: State
    place: str = ""
    note: str = ""


def differences(expected: BenchmarkDataset, counts: Mapping[str, Any]) -> str:
    """How a dataset's shards differ in number of samples from the benchmark; empty if they do
    not."""
    return ", ".join(
        f"{counts[split]:,} of {number:,} {split}"
        for split, number in (("train", expected.train), ("test", expected.test))
        if counts[split] != number
    )
