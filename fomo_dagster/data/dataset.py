"""The declaration of a dataset: where its images come from and how they are described.

A declaration is in a YAML file of the project's `datasets/` folder, or under `datasets:` in an
experiment file. It does not state the dataset's role: the experiment that uses it does.
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

    task: Literal["classification", "retrieval"] = Field(
        "classification",
        description="How the dataset is scored: by accuracy over its classes, or by recall over "
        "captions.",
    )
    prompt: str = Field(
        "A photo of a {}.",
        description="The prompt of evaluation, and the training text of a sample without a "
        "caption. `{}` stands for the concept.",
    )
    resize: int | None = Field(
        None,
        ge=8,
        le=65_535,
        description="Store images with this short side; null: store them as they come.",
    )
    background: str = at_default_left_out(
        WHITE, description="The colour that transparency shows: #rrggbb, or a name such as black."
    )
    upright: bool = at_default_left_out(
        False, description="Turn images by their orientation tags, which are otherwise ignored."
    )
    unreadable_limit: float = Field(
        0.01, ge=0, le=1, description="Fail if more than this share of the images is unreadable."
    )
    year: int | None = Field(
        None, ge=1900, le=2200, description="Year of publication, for streams in order of time."
    )
    domain: str = Field("", description="The kind of images, such as animals; for information.")
    licence: str = Field("", description="The licence of the images; for information.")
    description: str = Field("", description="Shown by `fomo datasets show`.")

    @property
    def decoding(self) -> Decoding:
        """How the images are decoded."""
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
                f"background {background!r} is not an opaque colour: expected #rrggbb, or a "
                "name such as 'black'"
            ) from None
        return f"#{red:02x}{green:02x}{blue:02x}"

    @field_validator("prompt")
    @classmethod
    def _has_one_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("write {} exactly once, where the concept goes")
        return prompt


class Dataset(DatasetSettings):
    """A named set of images with text."""

    source: AnySource = Field(description="Where the images come from.")

    def open(self, name: str, base: Path, cache: Path) -> Source:
        """What reads the images of the dataset `name`; see `DeclaredSource.open`."""
        one_concept = name if self.task == "retrieval" else None
        return self.source.open(name, base, cache, one_concept=one_concept)

    @model_validator(mode="after")
    def _can_be_resized(self) -> Dataset:
        if self.resize is not None and self.source.access != "copied":
            raise ValueError(
                "images that are read in place cannot be stored in another size: leave out resize"
            )
        return self


class PretrainingPool(Declaration):
    """Samples like those that θ₀ was trained on: the training splits of some datasets."""

    name: str = Field(description="Names the pool's asset.")
    datasets: tuple[DatasetName, ...] | dict[DatasetName, float] = Field(
        min_length=1,
        description="A list: all their samples together, each equally often. A mapping from "
        "datasets to weights: each dataset's share of the pool's samples. Weights "
        "need not add up to 1.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The datasets. With weights, their order means nothing and they are sorted."""
        return self.datasets if isinstance(self.datasets, tuple) else tuple(sorted(self.datasets))

    @property
    def weights(self) -> dict[str, float] | None:
        """Dataset → weight; None if no weights are given or there is only one dataset."""
        one = len(self.datasets) == 1
        return None if isinstance(self.datasets, tuple) or one else self.datasets

    @field_validator("datasets", mode="wrap")
    @classmethod
    def _are_distinct(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Compared with what was given, since two names of one dataset are one key of a mapping."""
        datasets = read(given)
        if len(set(datasets)) != len(given):
            raise ValueError("it names a dataset twice: leave one out")
        return datasets

    @model_validator(mode="after")
    def _have_shares(self) -> PretrainingPool:
        for dataset, weight in (self.weights or {}).items():
            if weight <= 0:
                raise ValueError(
                    f"the weight of {dataset!r} is {weight:g} and must be above 0: leave out a "
                    "dataset that you do not want to draw from"
                )
        return self
