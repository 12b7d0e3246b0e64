"""Training batches: samples of the pools, read, augmented and tokenised, as a function of the step.

`mixture.py` decides how many samples of each pool a batch holds; the pools decide which
(`pools.py`).
"""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.pools import Pool
from fomo_dagster.data.sampling import sample_seed
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.units import byte_size

Transform = Callable[[Any, np.random.Generator], torch.Tensor]
"""An image as its pool decodes it, and the generator of its augmentation, to a tensor of pixels
(3, H, W), uint8."""

Tokenize = Callable[[list[str]], torch.Tensor]
"""N texts to int64 tokens (N, L)."""

TOKENISED = 8192  # texts: 5 MB of tokens at CLIP's context length
BATCHES_AHEAD = 2  # of each worker; those that it has under way
SHARED_MEMORY = Path("/dev/shm")  # where PyTorch shares tensors on Linux
PRELOADED = ["torch", "torchvision", "open_clip"]


class Batch(NamedTuple):
    """A contrastive batch of B rows: those of the update pool, then buffer, then pretraining. With
    several processes, each has its part of the rows."""

    images: torch.Tensor
    """(B, 3, H, W), uint8; normalised where they are used, so that little is moved."""
    tokens: torch.Tensor
    """(B, L), int64."""
    drawn: torch.Tensor
    """(B, 2), int64: the row of each one's sample in its pool's manifest (-1 where the pool is of
    several, or of none), and the number of the caption among the sample's."""
    texts: list[str]
    """What was tokenised, for models that have another tokeniser."""
    counts: dict[str, int]
    """Rows of each of `POOLS`, of all processes together."""

    def pinned(self) -> Batch:
        """A copy from which a CUDA device takes images and tokens beside other work."""
        return self._replace(images=self.images.pin_memory(), tokens=self.tokens.pin_memory())


class Batches(Dataset[Batch]):
    """The batches of a stage: `batches[step]` for each step, always the same for the same step.

    `pools` are by pool name. `sizes` say how many samples of each a batch holds, and how many the
    batches before it held, so every pool is drawn position by position. With `workers`, that many
    processes make the batches, and `transform` and `tokenize` must be picklable. In a `group` of
    processes, each has its rows of each batch and reads no others. pinned: in memory from which a
    CUDA device takes them beside other work. Raises `InputError` if a pool that batches draw from
    is missing or empty.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        sizes: StepSizes,
        *,
        seed: int,
        stage: int,
        transform: Transform,
        tokenize: Tokenize,
        workers: int = 0,
        group: ProcessGroup = SINGLE_PROCESS,
        pinned: bool = False,
    ) -> None:
        for name, size in sizes.largest.items():
            if size > 0 and (name not in pools or pools[name].size == 0):
                raise InputError(
                    f"batches of stage {stage} need {size} samples of the {name} pool, which is "
                    "empty: add samples to it, or set its share to 0"
                )
        self.sizes, self.steps, self.workers = sizes, sizes.steps, workers
        self._pinned = pinned
        self._pools = {name: pools[name] for name, size in sizes.largest.items() if size > 0}
        self._seed, self._stage = seed, stage
        self._transform, self._tokens = transform, Tokens(tokenize)
        self._group = replace(group, control=None)  # sent to workers, which have no others

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.made(step)

    def made(self, step: int, place: torch.Tensor | None = None) -> Batch:
        """The batch of a step, its images the first rows of `place`, if that is given."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is not one of the {self.steps} steps of the stage")
        images: list[torch.Tensor] = []
        texts: list[str] = []
        drawn: list[tuple[int, int]] = []
        for name, position in self._rows(step):
            captions, image, row = self._pools[name].sample(self._seed, self._stage, position)
            key = sample_seed(self._seed, self._stage, name, position)
            rng = np.random.Generator(np.random.Philox(key=key))
            caption = int(rng.integers(len(captions)))
            texts.append(captions[caption])
            drawn.append((row, caption))
            images.append(self._transform(image, rng))
        out = None if place is None else place[: len(images)]
        stacked = torch.stack(images, out=out)
        return Batch(
            stacked, self._tokens.of(texts), torch.tensor(drawn), texts, self.sizes.at(step)
        )

    def _rows(self, step: int) -> Iterator[tuple[str, int]]:
        """Pool and position of each of this process's rows of a batch."""
        rows = itertools.count()
        before = self.sizes.before(step)
        for name, count in self.sizes.at(step).items():
            for position in range(before[name], before[name] + count):
                if self._group.has(next(rows)):
                    yield name, position

    @property
    def rows(self) -> int:
        """The most rows that this process has of a batch."""
        return sum(map(self._group.has, range(sum(self.sizes.largest.values()))))

    def example(self, step: int) -> torch.Tensor:
        """An image of a batch, (3, H, W), in the shape and type of all."""
        name, position = next(self._rows(step))
        image = self._pools[name].sample(self._seed, self._stage, position).image
        return self._transform(image, np.random.default_rng(0))

    def iterate(self, start: int, every: int = 1) -> Iterator[Batch]:
        """The batches of steps `start`, `start` + `every`, …, in order, made ahead of use by
        `workers` processes.

        The result is the same for any number of workers, including an error.
        """
        steps = range(start, self.steps, every)
        loaded = self._by_workers(steps) if self.workers and steps else map(self.made, steps)
        for batch in loaded:
            yield batch if not self._pinned else batch.pinned()

    def _by_workers(self, steps: range) -> Iterator[Batch]:
        """With `pinned`, a worker overwrites the images of each after the next is asked for."""
        shared = _Shared.of(self, steps)
        loader = DataLoader(
            shared,
            batch_size=None,
            sampler=range(len(steps)),
            num_workers=self.workers,
            prefetch_factor=BATCHES_AHEAD,
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context=_worker_context(),
            generator=torch.Generator(),  # else the loader draws from, and so moves, the global one
        )
        for order, made in enumerate(loader):
            if isinstance(made, FomoError):
                raise made
            images = shared.images(order, made.rows)
            images = images if self._pinned else images.clone()  # which pinning would do
            tokens, drawn = torch.from_numpy(made.tokens), torch.from_numpy(made.drawn)
            yield Batch(images, tokens, drawn, made.texts, made.counts)


class Tokens:
    """Tokens of texts, each tokenised once while it is among the last `TOKENISED` asked for."""

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._known: dict[str, torch.Tensor] = {}  # text → (L,); what was asked for last at the end

    def __reduce__(self) -> tuple[type[Tokens], tuple[Tokenize]]:
        return Tokens, (self._tokenize,)

    def of(self, texts: list[str]) -> torch.Tensor:
        """(N, L), as `tokenize` gives it."""
        distinct = dict.fromkeys(texts)
        known = {text: self._known.pop(text) for text in distinct if text in self._known}
        if new := [text for text in distinct if text not in known]:
            known |= zip(new, self._tokenize(new), strict=True)
        self._known |= known
        for text in [*itertools.islice(self._known, max(0, len(self._known) - TOKENISED))]:
            del self._known[text]
        return torch.stack([known[text] for text in texts])


class _Made(NamedTuple):
    """A batch as a worker sends it, without its images: arrays, since each tensor would be shared
    by a file of its own."""

    rows: int
    tokens: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64]
    texts: list[str]
    counts: dict[str, int]


class _Shared(Dataset[_Made | FomoError]):
    """Batches whose images workers write into the same memory over and over: new memory for each,
    which is cleared and then given to two processes page by page, costs more than a copy.

    Batches, or the errors they end in: an error that a `DataLoader` carries over from a worker
    would have a traceback as its message.
    """

    def __init__(self, batches: Batches, steps: range, places: torch.Tensor) -> None:
        self._batches, self._steps = batches, steps
        self._places = places  # (P, B, 3, H, W): for all batches that are under way, and one more

    @classmethod
    def of(cls, batches: Batches, steps: range) -> _Shared:
        """With the memory that the batches take. Raises `InputError` if there is less."""
        example = batches.example(steps[0])
        places = batches.workers * BATCHES_AHEAD + 1
        empty = torch.empty(places, batches.rows, *example.shape, dtype=example.dtype)
        _check_shared_memory(empty.nbytes, batches.workers)
        empty.share_memory_()  # type: ignore[no-untyped-call]
        return cls(batches, steps, empty)

    def images(self, order: int, rows: int) -> torch.Tensor:
        """Those of the batch that comes at this place in the order."""
        return self._places[order % len(self._places)][:rows]

    def __getitem__(self, order: int) -> _Made | FomoError:
        place = self._places[order % len(self._places)]
        try:
            batch = self._batches.made(self._steps[order], place)
        except FomoError as error:
            return error
        tokens, drawn = batch.tokens.numpy(), batch.drawn.numpy()
        return _Made(len(batch.images), tokens, drawn, batch.texts, batch.counts)


def _as_it_is(made: Any) -> Any:
    return made


def _check_shared_memory(needed: int, workers: int) -> None:
    """A write beyond what there is would kill the worker by a signal."""
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"batches of {workers} workers take {byte_size(needed)} of shared memory, but "
            f"{SHARED_MEMORY} has {byte_size(free)} free: use fewer execution.workers, or give it "
            "more (of a container: --shm-size)"
        )


def _worker_context() -> ForkServerContext:
    """Workers are forked from a clean process, never from this one with its threads and devices;
    and that process imports the heavy libraries once, not each worker at every stage."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C, or closing it, reaches all processes of a terminal: the training alone decides when
    to end."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
