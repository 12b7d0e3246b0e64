"""A release in memory, with the thread that runs its model."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from fomo_dagster.releases.records import Candidate
from fomo_dagster.serving.batcher import Batcher, OnBatch
from fomo_dagster.serving.engine import IMAGES, TEXTS, Engine, Floats

MOST_TEXTS = 8192  # whose features are kept: class names come again and again


@dataclass(frozen=True)
class KeptText:
    """features: (D,), of length 1. was_cut: whether the text was too long; None if unknown."""

    features: Floats
    was_cut: bool | None


@dataclass(eq=False)
class LoadedRelease:
    """number, candidate: which one. users: requests that it answers at the moment. texts: the last
    texts with their features. Both are the event loop's alone."""

    number: int
    candidate: Candidate
    engine: Engine
    batcher: Batcher
    users: int = 0
    texts: OrderedDict[str, KeptText] = field(default_factory=OrderedDict)
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def keep(self, text: str, kept: KeptText) -> None:
        """Keep the features of a text, and drop those that were not asked for the longest."""
        self.texts[text] = kept
        self.texts.move_to_end(text)
        while len(self.texts) > MOST_TEXTS:
            self.texts.popitem(last=False)

    def close(self) -> None:
        """Finish what was submitted, and let go of the model."""
        self.batcher.close()


@dataclass(frozen=True)
class Batching:
    """most_rows: images or texts of a batch. wait_seconds: how long the first one waits for
    others."""

    most_rows: int = 32
    wait_seconds: float = 0.003


def loaded(
    number: int, candidate: Candidate, engine: Engine, batching: Batching, on_batch: OnBatch
) -> LoadedRelease:
    """The release, warm: batches of one and of the most rows were run, since the first ones take
    longer."""
    size = engine.description.images.size
    tokens = engine.tokens(["a photo"]).ids
    for rows in (1, batching.most_rows):
        engine.encode(IMAGES, np.zeros((rows, 3, size, size), np.float32))
        engine.encode(TEXTS, np.repeat(tokens, rows, axis=0))
    batcher = Batcher(
        engine.encode, most_rows=batching.most_rows, wait_seconds=batching.wait_seconds,
        on_batch=on_batch,
    )  # fmt: skip
    return LoadedRelease(number, candidate, engine, batcher)
