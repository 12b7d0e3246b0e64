"""The base of sets that are a whole grid of factors, of which a seeded choice is rendered.

A sample is a cell of the grid. Its picture and its concept follow from the cell alone; the seed
says which cells there are, and which of them are for testing. No cell is in both splits, and every
concept has as many as any other, as long as there are cells.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.data.suite.drawn import SPLITS
from fomo_dagster.data.suite.generator import GeneratedSample
from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.store.digests import digest_of

Cell = tuple[int, ...]  # the number of each factor's value


class FactorParameters(Declaration):
    """How many cells are chosen; the benchmark's numbers by default."""

    samples: int = Field(75_000, ge=0, description="Of the training split.")
    test_samples: int = Field(25_000, ge=0)


class FactorGenerator(ABC):
    """A generator over all combinations of some factors' values; see `Generator`."""

    version: int = 1
    name: str
    factors: dict[str, int]  # how many values each has
    Parameters: type[FactorParameters] = FactorParameters

    def __init__(self, parameters: FactorParameters, seed: int) -> None:
        """Raises `InputError` if there are fewer cells than samples."""
        self.parameters = parameters
        self.seed = seed
        wanted = parameters.samples + parameters.test_samples
        if wanted > self.cells:
            raise InputError(
                f"generator {self.name!r} has {self.cells:,} pictures, and samples and "
                f"test_samples ask for {wanted:,}: ask for fewer"
            )

    @abstractmethod
    def groups(self) -> dict[str, Sequence[int]]:
        """Of each factor that the concept names, the group that each value belongs to."""

    @abstractmethod
    def concept(self, cell: Cell) -> str:
        """What a cell's picture shows, in words."""

    @abstractmethod
    def captions(self, cell: Cell, concept: str) -> tuple[str, ...]:
        """One to three captions of a cell's picture."""

    @abstractmethod
    def paint(self, cell: Cell) -> Image.Image:
        """A cell's picture, RGB."""

    @property
    def cells(self) -> int:
        """All combinations there are."""
        return math.prod(self.factors.values())

    def samples(self, split: str) -> list[GeneratedSample]:
        """All samples of `split`, cell by cell; see `Generator.samples`."""
        chosen = self._of_split(split)
        places = np.unravel_index(chosen, tuple(self.factors.values()))
        cells = np.stack(places, axis=1).tolist()  # (N, factors)
        samples = []
        for number, cell in zip(chosen.tolist(), map(tuple, cells), strict=True):
            concept = self.concept(cell)
            captions = self.captions(cell, concept)
            samples.append(GeneratedSample(f"{split}/{number:06d}", concept, captions))
        return samples

    def render(self, split: str, key: str) -> Image.Image:
        """The RGB image of one sample; see `Generator.render`."""
        chosen = self._of_split(split)
        digits = key.removeprefix(f"{split}/")
        number = int(digits) if digits.isascii() and digits.isdecimal() else -1
        place = int(np.searchsorted(chosen, number))
        is_chosen = place < len(chosen) and chosen[place] == number
        if not is_chosen or key != f"{split}/{number:06d}":
            raise DataError(
                f"generator {self.name!r} has no {split} sample {key!r}; keys are {split}/<number> "
                f"of {len(chosen):,} cells"
            )
        return self.paint(tuple(map(int, np.unravel_index(number, tuple(self.factors.values())))))

    @cached_property
    def _by_split(self) -> dict[str, npt.NDArray[np.int64]]:
        """The numbers of each split's cells, ascending."""
        rng = np.random.default_rng(int(digest_of([self.name, self.version, self.seed]), 16))
        order = rng.permutation(self.cells)
        order = order[np.argsort(_turns(self._concepts()[order]), kind="stable")]
        train, test = self.parameters.samples, self.parameters.test_samples
        return {"train": np.sort(order[:train]), "test": np.sort(order[train : train + test])}

    def _concepts(self) -> npt.NDArray[np.int64]:
        """A number of each cell's concept: (cells,)."""
        shape = tuple(self.factors.values())
        numbers = np.zeros(shape, dtype=np.int64)
        for factor, groups in self.groups().items():
            axis = list(self.factors).index(factor)
            along = [-1 if i == axis else 1 for i in range(len(shape))]
            numbers = numbers * (max(groups) + 1) + np.reshape(groups, along)
        return numbers.reshape(-1)

    def _of_split(self, split: str) -> npt.NDArray[np.int64]:
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}; {nearest(split, SPLITS)}")
        return self._by_split[split]


def _turns(concepts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many entries before each are of its concept: (N,)."""
    order = np.argsort(concepts, kind="stable")
    in_order = concepts[order]
    first = np.searchsorted(in_order, in_order)
    turns = np.empty(len(concepts), dtype=np.int64)
    turns[order] = np.arange(len(concepts)) - first
    return turns
