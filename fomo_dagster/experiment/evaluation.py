"""What every stage is measured on, as an experiment declares it, and prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from fomo_dagster.data.dataset import DatasetName
from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.names import check_safe_name


class WaffleDescriptors(Declaration):
    """WaffleCLIP's random descriptors (arXiv 2306.07282): one of words, one of characters each."""

    pairs: int = Field(15, ge=1, description="Each is two templates.")
    words: int = Field(2, ge=1, le=20, description="Words, or groups of characters, of each.")
    seed: int = Field(0, ge=0)


class Waffle(Declaration):
    """The dataset's own prompt with random descriptors."""

    waffle: WaffleDescriptors = WaffleDescriptors()


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
        (), description="Datasets of zero-shot retention, never trained on."
    )
    prompts: Prompts = Field(
        "dataset",
        description="The dataset's own prompt, an OpenCLIP template set, a list of templates, or "
        "`waffle:` for the dataset's own prompt with random descriptors.",
    )
    subset: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of a stratified, seeded subset of each classification dataset, of at "
        "least 300 samples and two a class; retrieval datasets are always evaluated whole.",
    )
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    retention_warning: float = Field(
        0.1, ge=0, description="Warn when ZS falls by more than this share in one stage."
    )


class Validation(Declaration):
    """Choosing settings without the test splits: every stage is measured on held-out training
    samples of the stream's datasets instead, which it then does not train on."""

    share: float = Field(0.2, gt=0, lt=1, description="Of every concept's training samples.")
    seed: int = 0
    name: Annotated[str, AfterValidator(check_safe_name)] = Field(
        "validation",
        description="What the names of the datasets it makes end in; experiments that hold out "
        "otherwise need another.",
    )
