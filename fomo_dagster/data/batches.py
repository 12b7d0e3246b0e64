"""Training batches: samples of the pools, read, augmented and tokenised, as a function of the step.

How many samples of each pool a batch holds is `mixture.py`'s, which ones `sampling.py`'s.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from multiprocessing.context import ForkServerContext
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.index import Index
from fomo_dagster.data.mixture import POOLS
from fomo_dagster.data.samples import INDEX
from fomo_dagster.data.sampling import positions, sample_seed
from fomo_dagster.errors import DataError, FomoError, InputError, nearest

Transform = Callable[[Image.Image, np.random.Generator], torch.Tensor]
"""A decoded image, and the generator of its augmentation, to a tensor of pixels (3, H, W)."""

Tokenize = Callable[[list[str]], torch.Tensor]
"""N texts to int64 tokens (N, L)."""

LOCATION = {name: INDEX[name] for name in ("key", "digest", "shard", "offset", "size")}
NAMED_AT_MOST = 5  # samples that one error names
PRELOADED = ["torch", "torchvision", "open_clip"]


class Batch(NamedTuple):
    """A contrastive batch of B rows: those of the update pool, then buffer, then pretraining."""

    images: torch.Tensor
    """(B, 3, H, W), uint8; normalised where they are used, so that little is moved."""
    tokens: torch.Tensor
    """(B, L), int64."""
    counts: dict[str, int]
    """Rows of each of `POOLS`."""


class Pool:
    """The samples of a manifest, found in the shards of their datasets.

    `indexes` are by dataset. Raises `DataError` where a dataset has no index, where its training
    split does not hold the very images that the manifest names, or a sample has no caption.
    """

    def __init__(
        self,
        name: str,
        manifest: pl.DataFrame,
        indexes: Mapping[str, Index],
    ) -> None:
        datasets = manifest["dataset"].unique().sort().to_list()
        for dataset in datasets:
            if dataset not in indexes:
                raise DataError(
                    f"the {name} pool names the dataset {dataset!r}, of which there are no "
                    f"shards: {nearest(dataset, indexes)}"
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
                f"{len(missing)} of the {len(manifest)} samples of the {name} pool are not in the "
                f"shards, or with another image: {', '.join(map('/'.join, named))}; materialise "
                "the datasets' shards, and the stream after them, again"
            )
        return rows

    def __len__(self) -> int:
        return len(self._places)

    def text(self, row: int, rng: np.random.Generator) -> str:
        """One of the captions of the manifest's row, each as likely."""
        texts = self._texts[row]
        return texts[rng.integers(len(texts))]

    def image(self, row: int) -> Image.Image:
        """The image of the manifest's row. Raises `DataError` where it cannot be decoded."""
        number, offset, size = self._places[row].tolist()
        dataset, shard = self._shards[number]
        index = self._indexes[dataset]
        data = index.read(shard, offset, size)
        try:
            return decoded(data)
        except UnreadableImageError as error:
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


class Batches(Dataset[Batch]):
    """The batches of a stage: `batches[step]` for each step, always the same for the same step.

    `pools` and `sizes` (samples of a pool in a batch) are by pool name. With `workers`, iteration
    makes batches in so many processes, and `transform` and `tokenize` must be picklable. Raises
    `InputError` where a pool that batches draw from is missing or empty.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        sizes: Mapping[str, int],
        *,
        seed: int,
        stage: int,
        steps: int,
        transform: Transform,
        tokenize: Tokenize,
        workers: int = 0,
    ) -> None:
        for name, size in sizes.items():
            if name not in POOLS:
                raise InputError(f"unknown pool {name!r}: {nearest(name, POOLS)}")
            if size > 0 and not len(pools.get(name, ())):
                raise InputError(
                    f"batches of stage {stage} need {size} samples of the {name} pool, which is "
                    "empty: give it samples, or its share to the other pools"
                )
        self.sizes = {name: sizes.get(name, 0) for name in POOLS}
        self._pools = {name: pools[name] for name in POOLS if self.sizes[name] > 0}
        self.steps, self.workers = steps, workers
        self._seed, self._stage = seed, stage
        self._transform, self._tokenize = transform, tokenize

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is not one of the {self.steps} steps of the stage")
        images: list[torch.Tensor] = []
        texts: list[str] = []
        for name, pool in self._pools.items():
            start, count = step * self.sizes[name], self.sizes[name]
            drawn = positions(self._seed, self._stage, name, len(pool), start, count)
            for position, row in enumerate(drawn.tolist(), start):
                key = sample_seed(self._seed, self._stage, name, position)
                rng = np.random.Generator(np.random.Philox(key=key))
                texts.append(pool.text(row, rng))
                images.append(self._transform(pool.image(row), rng))
        return Batch(torch.stack(images), self._tokenize(texts), dict(self.sizes))

    def iterate(self, start: int) -> Iterator[Batch]:
        """The batches from step `start` on, in order, made by `workers` processes ahead of use.

        What comes is the same for any number of workers, an error too.
        """
        loader = DataLoader(
            _Outcomes(self),
            batch_size=None,
            sampler=range(start, self.steps),
            num_workers=self.workers,
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context=_worker_context() if self.workers else None,
            generator=torch.Generator(),  # else the loader draws from, and so moves, the global one
        )
        for outcome in loader:
            if isinstance(outcome, FomoError):
                raise outcome
            yield outcome


class _Outcomes(Dataset[Batch | FomoError]):
    """Batches, or the errors they end in: an error that a `DataLoader` carries over from a worker
    would have a traceback as its message."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Batch | FomoError:
        try:
            return self._batches[step]
        except FomoError as error:
            return error


def _worker_context() -> ForkServerContext:
    """Workers are forked from a clean process, never from this one with its threads and devices;
    and that process imports the heavy libraries once, not each worker at every stage."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the training alone decides when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
