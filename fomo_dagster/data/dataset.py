"""What a person declares of a dataset: where its images come from and how they are described.

A declaration stands in a YAML file of the project's `datasets/` folder, or under `datasets:` in an
experiment file. It says nothing about the dataset's role: the experiment that uses it does.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from fomo_dagster.data.benchmark.registry import canonical_name
from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.data.decoding import WHITE, Decoding
from fomo_dagster.data.sources.registry import AnySource
from fomo_dagster.data.sources.source import Source


def declared_names(info: ValidationInfo) -> Container[str]:
    """The names of the datasets that are declared, from the context of a validation."""
    names: Container[str] = (info.context or {}).get("declared", ())
    return names


def _canonical(name: str, info: ValidationInfo) -> str:
    return canonical_name(name, declared_names(info))


DatasetName = Annotated[str, AfterValidator(_canonical)]
"""The name of a declared dataset (the validation context's `declared`), or any of those by which a
dataset of the benchmark goes; the latter become its handle."""


class DatasetSettings(Declaration):
    """How a set of images is described and stored, wherever it comes from."""

    task: Literal["classification", "retrieval"] = "classification"
    prompt: str = Field(
        "A photo of a {}.",
        description="The prompt of evaluation, and the training text of a sample without caption; "
        "`{}` stands for the concept.",
    )
    resize: int | None = Field(
        None, ge=8, description="Store images with this short side instead of as they come."
    )
    background: str = at_default_left_out(
        WHITE, description="The colour that transparency shows: #rrggbb, or a name such as black."
    )
    upright: bool = at_default_left_out(
        False, description="Turn images as their orientation tags say, which are else ignored."
    )
    unreadable_limit: float = Field(
        0.01, ge=0, le=1, description="Share of unreadable images above which sharding fails."
    )
    year: int | None = Field(
        None, ge=1900, le=2200, description="Of publication, for streams in order of time."
    )
    domain: str = ""
    licence: str = ""
    description: str = ""

    @property
    def decoding(self) -> Decoding:
        """How the images are shown."""
        return Decoding(self.background, self.upright)

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, background: str) -> str:
        """In one spelling, so that another one of the same colour is no other identity."""
        if background == WHITE:
            return background
        from PIL import ImageColor

        try:
            red, green, blue = cast(tuple[int, int, int], ImageColor.getrgb(background))
        except ValueError:  # no colour, or one with a fourth part, alpha
            raise ValueError(
                f"background {background!r} is no opaque colour: expected #rrggbb, or a name such "
                "as 'black'"
            ) from None
        return f"#{red:02x}{green:02x}{blue:02x}"

    @field_validator("prompt")
    @classmethod
    def _has_one_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("a prompt needs exactly one {} where the concept goes")
        return prompt


class Dataset(DatasetSettings):
    """A named set of images with text."""

    source: AnySource

    def open(self, name: str, base: Path, cache: Path) -> Source:
        """What reads the dataset's images, where it is called `name`; see `DeclaredSource.open`."""
        one_concept = name if self.task == "retrieval" else None
        return self.source.open(name, base, cache, one_concept=one_concept)

    @model_validator(mode="after")
    def _can_be_resized(self) -> Dataset:
        if self.resize is not None and self.source.access != "copied":
            raise ValueError("images that are read where they lie cannot be stored in another size")
        return self


class PretrainingPool(Declaration):
    """Samples like those that θ₀ was trained on: the training splits of some datasets."""

    name: str
    datasets: tuple[DatasetName, ...] | dict[DatasetName, float] = Field(
        min_length=1,
        description="A list: all their samples together, each as often. A mapping from datasets to "
        "weights: each dataset's share of the pool's samples; weights need not add up to one.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The datasets; where they have weights, their order means nothing and they are sorted."""
        return self.datasets if isinstance(self.datasets, tuple) else tuple(sorted(self.datasets))

    @property
    def weights(self) -> dict[str, float] | None:
        """Dataset → weight; None where none is given, or there is but one to give it to."""
        one = len(self.datasets) == 1
        return None if isinstance(self.datasets, tuple) or one else self.datasets

    @field_validator("datasets", mode="wrap")
    @classmethod
    def _are_distinct(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Compared with what was given, since two names of one dataset are one key of a mapping."""
        datasets = read(given)
        if len(set(datasets)) != len(given):
            raise ValueError("a dataset is named twice")
        return datasets

    @model_validator(mode="after")
    def _have_shares(self) -> PretrainingPool:
        for dataset, weight in (self.weights or {}).items():
            if weight <= 0:
                raise ValueError(
                    f"the weight of {dataset!r} is {weight:g} and must be above 0: leave out a "
                    "dataset of which nothing is to be drawn"
                )
        return self
