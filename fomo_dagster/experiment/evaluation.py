"""The declaration of what every stage is measured on, and of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from fomo_dagster.data.dataset import DatasetName
from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.experiment.names import check_safe_name


class WaffleDescriptors(Declaration):
    """WaffleCLIP's random descriptors (arXiv 2306.07282), in pairs of one of words and one of
    characters."""

    pairs: int = Field(
        15, ge=1, le=10_000, description="Number of pairs; each gives two templates."
    )
    words: int = Field(
        2, ge=1, le=20, description="Words, or groups of characters, per descriptor."
    )
    seed: int = Field(0, ge=0, description="Seed of the descriptors.")


class Waffle(Declaration):
    """The dataset's own prompt with random descriptors."""

    waffle: WaffleDescriptors = Field(WaffleDescriptors(), description="The descriptors.")


def _have_places(prompts: Prompts) -> Prompts:
    if isinstance(prompts, tuple):
        bad = [p for p in prompts if p.count("{}") != 1]
        if bad or not prompts:
            raise ValueError(f"each template needs exactly one {{}}: {bad or 'none given'}")
    return prompts


def _written_as(prompts: Any) -> str:
    if isinstance(prompts, str):
        return "a name"
    return "descriptors" if isinstance(prompts, dict | Waffle) else "templates"


Prompts = Annotated[
    Annotated[Literal["dataset", "openai", "simple"], Tag("a name")]
    | Annotated[tuple[str, ...], Tag("templates")]
    | Annotated[Waffle, Tag("descriptors")],
    Discriminator(_written_as),
    AfterValidator(_have_places),
]


def _in_their_order(kinds: tuple[Corruption, ...]) -> tuple[Corruption, ...]:
    return tuple(kind for kind in get_args(Corruption) if kind in kinds)


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers)))


class Strengths(Declaration):
    """The grid of C, the inverse strength of the regularisation: even in its logarithm, with both
    ends."""

    lowest: float = Field(1e-6, gt=0, description="The lowest C.")
    highest: float = Field(1e6, gt=0, description="The highest C.")
    per_decade: int = Field(8, ge=1, le=100, description="Values per factor of 10.")

    @model_validator(mode="after")
    def _ascends(self) -> Strengths:
        if self.highest < self.lowest:
            raise ValueError(f"highest is {self.highest:g}, below the lowest, {self.lowest:g}")
        return self


class FewShot(Declaration):
    """Linear probes and class means on the features of a few training images of each class."""

    shots: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), AfterValidator(_ascending)
    ] = Field(
        (1, 5, 10),
        description="Numbers of images per class. More shots contain the fewer.",
    )
    choosing_images: int = Field(
        4,
        ge=1,
        description="Training images per class that C is chosen on, and that are no shots: at most "
        "this many, and a quarter of the class's.",
    )
    regularisation: Strengths = Field(Strengths(), description="The values of C to choose from.")
    seed: int = Field(0, ge=0, description="Seed of the images.")


class Temperature(Declaration):
    """Temperature scaling (arXiv 1706.04599): a factor of the model's temperature that is fitted
    after each stage. Images are scaled by what is fitted on others."""

    shared_by: Literal["stage", "role", "dataset"] = Field(
        "stage",
        description="What has a temperature of its own: the stage with all its datasets, the "
        "adaptation and the held-out ones, or each dataset.",
    )
    folds: int = Field(
        2,
        ge=2,
        le=20,
        description="Parts of each dataset's images; each is scaled by what the others give.",
    )
    seed: int = Field(0, ge=0, description="Seed of the folds.")


class LayerTemperature(Temperature):
    """Layer-stack temperature scaling (arXiv 2211.10193): a weight for the logits of each layer of
    the image tower, fitted as `temperature` is."""


Corruption = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg_compression", "speckle_noise", "gaussian_blur", "saturate", "frost",
    "spatter",
]  # fmt: skip
COMMON_CORRUPTIONS = get_args(Corruption)[:14]
"""Those that are meant to test with, but for frost, which takes photographs of it; the others are
the paper's for validation."""


class Corruptions(Declaration):
    """Common corruptions of the test images (arXiv 1903.12261), seeded per image."""

    kinds: Annotated[
        tuple[Corruption, ...], Field(min_length=1), AfterValidator(_in_their_order)
    ] = Field(
        COMMON_CORRUPTIONS,
        description="The kinds of corruption; by default, those of ImageNet-C except frost.",
    )
    severities: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...],
        Field(min_length=1),
        AfterValidator(_ascending),
    ] = Field((1, 2, 3, 4, 5), description="How strong, from 1 to 5.")
    seed: int = Field(0, ge=0, description="Seed of the corruptions.")
    frost_pictures: Path | None = at_default_left_out(
        None,
        description="A folder of photographs of frost, as of the paper's code, which the kind "
        "`frost` lays over images; null: there is none.",
    )

    @model_validator(mode="after")
    def _has_pictures_of_frost(self) -> Corruptions:
        if ("frost" in self.kinds) != (self.frost_pictures is not None):
            given = "kinds has frost, and" if "frost" in self.kinds else "kinds has no frost, but"
            missing = "no frost_pictures are" if "frost" in self.kinds else "frost_pictures are"
            raise ValueError(f"{given} {missing} given: give both, or neither")
        return self

    def located(self, base: Path) -> Corruptions:
        """With the folder of photographs made whole, where it is relative to `base`."""
        if self.frost_pictures is None:
            return self
        return self.model_copy(update={"frost_pictures": base / self.frost_pictures.expanduser()})


class Evaluation(Declaration):
    """What every stage is measured on, and how."""

    adaptation: tuple[DatasetName, ...] | None = Field(
        None, description="Datasets of knowledge accumulation; null: those of the stream."
    )
    held_out: tuple[DatasetName, ...] = Field(
        (), description="Datasets of zero-shot retention. They are never trained on."
    )
    prompts: Prompts = Field(
        "dataset",
        description="The dataset's own prompt, one of OpenCLIP's template sets, a list of "
        "templates, or `waffle:` for the dataset's own prompt with random "
        "descriptors.",
    )
    subset: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Evaluate a stratified, seeded share of each classification dataset, with at "
        "least 300 samples and two per class. Retrieval datasets are always evaluated "
        "whole.",
    )
    seed: int = Field(0, description="Seed of the subset.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of the features."
    )
    retention_warning: float = Field(
        0.1, ge=0, description="Warn if ZS falls by more than this share in one stage."
    )
    few_shot: FewShot | None = at_default_left_out(
        None,
        description="Also measure linear probes and nearest class means on the features of a few "
        "training images, for each classification dataset; `{}` takes the defaults. null: do not.",
    )
    temperature: Temperature | None = at_default_left_out(
        None,
        description="Also fit a temperature after each stage, and measure calibration with it, "
        "for classification datasets; `{}` takes the defaults. null: do not.",
    )
    layer_temperature: LayerTemperature | None = at_default_left_out(
        None,
        description="Also fit weights for the logits of every layer of the image tower, and "
        "measure accuracy and calibration with them, for classification datasets; `{}` takes the "
        "defaults. null: do not.",
    )
    corruptions: Corruptions | None = at_default_left_out(
        None,
        description="Also measure accuracy on corrupted test images, for each classification "
        "dataset; `{}` takes the defaults. null: do not.",
    )

    def located(self, base: Path) -> Evaluation:
        """With all paths made whole, where they are relative to `base`."""
        if self.corruptions is None:
            return self
        return self.model_copy(update={"corruptions": self.corruptions.located(base)})


class Validation(Declaration):
    """Choosing settings without the test splits. Every stage is measured on held-out training
    samples of the stream's datasets, and does not train on them."""

    share: float = Field(
        0.2, gt=0, lt=1, description="Share of every concept's training samples to hold out."
    )
    seed: int = Field(0, description="Seed of the held-out samples.")
    name: Annotated[str, AfterValidator(check_safe_name)] = Field(
        "validation",
        description="Suffix of the names of the datasets that it makes. Experiments that hold out "
        "differently need different names.",
    )
