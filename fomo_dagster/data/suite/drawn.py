"""The base of all generators: which samples there are, and where each one's random draws come from.

A family gives its concepts and `draw`; the rest (keys, counts, seeds, checks) is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from pydantic import Field

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.data.suite.generator import GeneratedSample
from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.store.digests import digest_of

T = TypeVar("T")
SPLITS = ("train", "test")


class Drawing(NamedTuple):
    """A sample with its attributes drawn: what it is called, and how to paint it."""

    captions: tuple[str, ...]
    paint: Callable[[], Image.Image]


class DrawnParameters(Declaration):
    """What every generator takes."""

    samples_per_concept: int = Field(60, ge=0, le=1_000_000, description="Of the training split.")
    test_samples_per_concept: int = Field(20, ge=0, le=1_000_000)
    size: int = Field(32, ge=16, le=512, description="Side of the square images, in pixels.")
    concepts: tuple[str, ...] | None = Field(None, description="Some of the concepts; null: all.")


class DrawnGenerator(ABC):
    """A generator whose sample is (split, concept, number), drawn from a seed of its own."""

    version: int = 1
    name: str
    Parameters: type[DrawnParameters] = DrawnParameters

    def __init__(self, parameters: DrawnParameters, seed: int) -> None:
        """Raises `InputError` if a concept is unknown or named twice."""
        self.parameters = parameters
        self.seed = seed
        known = self.known_concepts()
        chosen = parameters.concepts if parameters.concepts is not None else known
        for concept in chosen:
            if concept not in known:
                raise InputError(
                    f"generator {self.name!r} has no concept {concept!r}; {nearest(concept, known)}"
                )
            if chosen.count(concept) > 1:
                raise InputError(f"generator {self.name!r}: concept {concept!r} is named twice")
        if not chosen:
            raise InputError(
                f"generator {self.name!r} was given no concepts; leave them out for all"
            )
        self.concepts = tuple(chosen)

    @abstractmethod
    def known_concepts(self) -> tuple[str, ...]:
        """Every concept this family can draw."""

    @abstractmethod
    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        """Draw the attributes of a sample from `rng`; painting comes later, if at all."""

    def count(self, split: str) -> int:
        """Samples per concept in `split`."""
        _check_split(split)
        parameters = self.parameters
        return (
            parameters.samples_per_concept
            if split == "train"
            else parameters.test_samples_per_concept
        )

    def samples(self, split: str) -> list[GeneratedSample]:
        """All samples of `split`, concept by concept; see `Generator.samples`."""
        return [
            GeneratedSample(
                f"{split}/{concept}/{number:05d}",
                concept,
                self._drawing(split, concept, number).captions,
            )
            for concept in self.concepts
            for number in range(self.count(split))
        ]

    def render(self, split: str, key: str) -> Image.Image:
        """The RGB image of one sample, `size` × `size`; see `Generator.render`."""
        _check_split(split)
        try:
            of_split, concept, digits = key.split("/")
            number = int(digits)
        except ValueError:
            of_split, concept, number = "", "", -1
        expected = f"{split}/{concept}/{number:05d}"
        if key != expected or concept not in self.concepts or not 0 <= number < self.count(split):
            raise DataError(
                f"generator {self.name!r} has no {split} sample {key!r}; "
                f"keys are {split}/<concept>/<number>, {self.count(split)} per concept"
            )
        return self._drawing(of_split, concept, number).paint()

    def _drawing(self, split: str, concept: str, number: int) -> Drawing:
        identity = [self.name, self.version, self.seed, split, concept, number]
        return self.draw(
            split, concept, number, np.random.default_rng(int(digest_of(identity), 16))
        )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}; {nearest(split, SPLITS)}")


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each equally likely."""
    return options[int(rng.integers(len(options)))]


def some(rng: np.random.Generator, captions: Sequence[str]) -> tuple[str, ...]:
    """One to three of `captions`, none twice."""
    count = min(int(rng.integers(1, 4)), len(captions))
    return tuple(captions[int(i)] for i in rng.permutation(len(captions))[:count])


def article(noun: str) -> str:
    """`noun` with "a" or "an" before it."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
