"""The images of samples, for pictures of what weights get right and wrong, and of what is alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import polars as pl
from PIL import Image

from fomo_dagster.data.index import Index
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.work.indexes import index_of

logger = logging.getLogger(__name__)


class SampleImages:
    """The image of a dataset's sample, by its key; None if it is no longer there, which is logged.
    What it is read from is opened once it is asked for, as is the context."""

    def __init__(self, context: Callable[[], NodeContext]) -> None:
        self._context = cache(context)
        self._indexes: dict[tuple[str, str], tuple[Index, pl.DataFrame] | None] = {}
        self._said: set[str] = set()

    def __call__(self, dataset: str, key: str, split: str = "test") -> Image.Image | None:
        where = (dataset, split)
        try:
            if where not in self._indexes:
                self._indexes[where] = None
                index = index_of(dataset, self._context())
                self._indexes[where] = index, index.rows(split)
            opened = self._indexes[where]
            if opened is None:
                return None
            index, rows = opened
            found = rows.filter(key=key).select("shard", "offset", "size")
            return index.picture(*found.row(0)) if found.height else None
        except FomoError as error:
            if dataset not in self._said:
                self._said.add(dataset)
                logger.warning("no pictures of %s: %s", dataset, error)
            return None
