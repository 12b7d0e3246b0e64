"""Pools of samples: which sample is at each position of the sequence that a training draws.

Every pool draws by itself, so pools of all kinds combine: the samples of a manifest (here), several
datasets with weights (`weighted.py`), streamed tars (`streamed.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch

from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.index import Index
from fomo_dagster.data.samples import INDEX
from fomo_dagster.data.sampling import positions, replacement
from fomo_dagster.errors import DataError, nearest

LOCATION = {name: INDEX[name] for name in ("key", "digest", "shard", "offset", "size")}
NAMED_AT_MOST = 5  # samples that one error names
REPLACEMENTS = 20  # undecodable images in a row that are taken for chance

Decode = Callable[[bytes, Decoding], Any]
"""From an encoded image to a picture for the transform; raises `UnreadableImageError`."""

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """An image and the texts that describe it."""

    captions: Sequence[str]
    """One or more, each as likely to be trained on."""
    image: Any
    """As the pool's decoder gives it."""
    row: int = -1
    """Of the pool's manifest, where all of the pool is in one; -1 otherwise."""


class Pool(Protocol):
    """An endless sequence of samples; picklable, so that worker processes can draw from it."""

    @property
    def size(self) -> int | None:
        """How many different samples there are; None if that is not known."""

    def sample(self, seed: int, stage: int, position: int) -> Sample:
        """The sample at a position: a pure function of (seed, stage, position) and the content.

        Raises `DataError` if it cannot be read.
        """

    def record(self, seed: int, stage: int, count: int) -> dict[str, int]:
        """Figures about drawing the first `count` positions, by name; often none."""


class ManifestPool:
    """The samples of a manifest, found in the shards of their datasets.

    They are drawn as consecutive permutations that belong to `name`. `indexes` are by dataset;
    `decode` is picklable. Raises `DataError` if a dataset has no index, where its training split
    does not hold the very images that the manifest names, or a sample has no caption.
    """

    def __init__(
        self,
        name: str,
        manifest: pl.DataFrame,
        indexes: Mapping[str, Index],
        decode: Decode = decoded,
    ) -> None:
        self.name, self._decode = name, decode
        datasets = manifest["dataset"].unique().sort().to_list()
        for dataset in datasets:
            if dataset not in indexes:
                raise DataError(
                    f"the {name} pool names the dataset {dataset!r}, which has no shards: "
                    f"{nearest(dataset, indexes)}"
                )
        wordless = manifest.filter(pl.col("captions").list.len() == 0)
        if len(wordless):
            named = wordless.head(NAMED_AT_MOST).select("dataset", "key").iter_rows()
            raise DataError(
                f"{len(wordless)} of the {len(manifest)} samples of the {name} pool have no "
                f"caption: {', '.join(map('/'.join, named))}; give each one, or the prompt"
            )
        self._indexes = {dataset: indexes[dataset] for dataset in datasets}
        rows = self._locate(name, manifest)
        shards = rows.select("dataset", "shard").unique().sort("dataset", "shard")
        numbered = shards.with_row_index("number")
        rows = rows.join(numbered, on=["dataset", "shard"], maintain_order="left")
        self._shards = shards.rows()
        # Tensors go to worker processes through shared memory: one copy of them serves all.
        self._places = rows.select(pl.col("number", "offset", "size").cast(pl.Int64)).to_torch()
        self._texts = _TextLists(rows["captions"])

    def _locate(self, name: str, manifest: pl.DataFrame) -> pl.DataFrame:
        """The rows of `manifest`, with the place of each one's image."""
        stored = [
            index.rows("train").select(pl.lit(dataset).alias("dataset"), *LOCATION)
            for dataset, index in self._indexes.items()
        ]
        rows = manifest.join(
            pl.concat([pl.DataFrame(schema={"dataset": pl.String, **LOCATION}), *stored]),
            on=["dataset", "key", "digest"],
            how="left",
            maintain_order="left",
        )
        missing = rows.filter(pl.col("shard").is_null())
        if len(missing):
            named = missing.head(NAMED_AT_MOST).select("dataset", "key").iter_rows()
            raise DataError(
                f"{len(missing)} of the {len(manifest)} samples of the {name} pool are "
                "missing from the shards, or have another image there: "
                f"{', '.join(map('/'.join, named))}; materialise the datasets' shards, and "
                "the stream after them, again"
            )
        return rows

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self._places)

    def sample(self, seed: int, stage: int, position: int) -> Sample:
        """See `Pool`. Raises `DataError` if the image cannot be decoded.

        If the image was never decoded before, another sample takes its place instead, with a
        warning.
        """
        row = int(positions(seed, stage, self.name, self.size, position, 1)[0])
        for attempt in range(REPLACEMENTS):
            image = self._image(row)
            if image is not None:
                return Sample(self._texts[row], image, row)
            row = replacement(seed, stage, self.name, position, attempt, self.size)
        raise DataError(
            f"at position {position} of the {self.name} pool, {REPLACEMENTS} images in a row "
            "cannot be decoded: look at the dataset's images"
        )

    def record(self, seed: int, stage: int, count: int) -> dict[str, int]:
        """Empty; see `Pool`."""
        return {}

    def _image(self, row: int) -> Any:
        """None if it cannot be decoded, and nobody said that it could be."""
        number, offset, size = self._places[row].tolist()
        dataset, shard = self._shards[number]
        index = self._indexes[dataset]
        try:
            return index.decoded(shard, offset, size, self._decode)
        except UnreadableImageError as error:
            if not index.is_checked:
                logger.warning(
                    "the image at byte %d of %s cannot be decoded (%s): another one is used "
"instead",
                    offset, index.path(shard), error.__cause__,
                )  # fmt: skip
                return None
            key = index.rows("train").filter(shard=shard, offset=offset)["key"].item()
            raise DataError(f"the image {key!r} of dataset {dataset!r} {error}") from error


class _TextLists:
    """N lists of texts in three flat tensors, where a polars column would be copied to workers."""

    def __init__(self, lists: pl.Series) -> None:
        texts = lists.explode()
        self._lists = _bounds(lists.list.len())  # (N + 1,)
        self._texts = _bounds(texts.str.len_bytes())  # (texts + 1,), in bytes
        self._bytes = torch.from_numpy(
            np.frombuffer("".join(texts).encode(), dtype=np.uint8).copy()
        )

    def __getitem__(self, row: int) -> list[str]:
        first, last = self._lists[row : row + 2].tolist()
        bounds = self._texts[first : last + 1].tolist()
        return [bytes(self._bytes[a:b].numpy()).decode() for a, b in pairwise(bounds)]


def _bounds(lengths: pl.Series) -> torch.Tensor:
    """Where consecutive pieces of these lengths (N,) start and end: (N + 1,), int64."""
    ends = np.cumsum(lengths.to_numpy(), dtype=np.int64)
    return torch.from_numpy(np.concatenate([np.zeros(1, dtype=np.int64), ends]))
