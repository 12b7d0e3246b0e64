"""The images of samples, for pictures of what weights get right and wrong, and of what is alike."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl
from PIL import Image

from fomo_dagster.data.index import Index
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.work.indexes import index_of

SECONDS_UNTIL_AGAIN = 30.0  # after something could not be read; what changed is opened at once

logger = logging.getLogger(__name__)


@dataclass
class _Opened:
    """shards: the artifacts that were opened; None where there are none. index: None where they
    could not be. again_at: when they are opened anew, since something failed."""

    shards: Mapping[str, tuple[str, str]] | None
    index: Index | None = None
    again_at: float = math.inf
    rows: dict[str, pl.DataFrame] = field(default_factory=dict)  # by split


class SampleImages:
    """The image of a dataset's sample, by its key; None if it is no longer there, which is logged.
    What it is read from is opened once it is asked for, as is the context, and anew where the
    dataset's shards were made anew. For one thread at a time."""

    def __init__(self, context: Callable[[], NodeContext]) -> None:
        self._new_context = context
        self._context: NodeContext | None = None
        self._opened: dict[str, _Opened] = {}
        self._said: set[str] = set()

    def __call__(self, dataset: str, key: str, split: str = "test") -> Image.Image | None:
        try:
            opened = self._current(dataset)
            if opened.index is None:
                return None
            if split not in opened.rows:
                opened.rows[split] = opened.index.rows(split)
            found = opened.rows[split].filter(key=key).select("shard", "offset", "size")
            return opened.index.picture(*found.row(0)) if found.height else None
        except FomoError as error:
            if dataset in self._opened:
                opened = self._opened[dataset]
                opened.again_at = min(opened.again_at, time.monotonic() + SECONDS_UNTIL_AGAIN)
            if dataset not in self._said:
                self._said.add(dataset)
                logger.warning("no pictures of %s: %s", dataset, error)
            return None

    def _current(self, dataset: str) -> _Opened:
        """The shards as they are now. Raises `FomoError` where they cannot be opened."""
        if self._context is None:
            self._context = self._new_context()
        head, known = self._context.heads.read(shards_key(dataset)), self._opened.get(dataset)
        shards = None if head is None else head.artifacts
        if known is not None and known.shards == shards and time.monotonic() < known.again_at:
            return known
        opened = self._opened[dataset] = _Opened(shards)
        if known is not None:
            self._context = self._new_context()  # which has looked at no source yet
        opened.index = index_of(dataset, self._context)
        self._said.discard(dataset)
        return opened
