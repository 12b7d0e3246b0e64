"""What a stage costs to use, beside what is live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IMAGE, TEXT = "image", "text"


@dataclass(frozen=True)
class Costs:
    """What a model costs to use: operations for the features of one image and of one text, and
    parameters."""

    image: int
    text: int
    parameters: int


@dataclass(frozen=True)
class Latency:
    """How many times as long the stage takes: the median of `passes` by turns, and its 95 %
    interval."""

    estimate: float
    low: float
    high: float
    passes: int


@dataclass(frozen=True)
class Compared:
    """A stage and what is live. stage, live: their costs; None where one cannot be counted.
    latencies: of an image and of a text; None where they were not timed. is_same: whether both have
    one architecture, and so one cost."""

    stage: Costs | None = None
    live: Costs | None = None
    latencies: Mapping[str, Latency] | None = None
    is_same: bool = False
