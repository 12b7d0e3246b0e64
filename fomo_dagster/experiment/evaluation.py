"""The declaration of what every stage is measured on, and of prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from fomo_dagster.data.dataset import DatasetName
from fomo_dagster.data.declarations import Declaration
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
