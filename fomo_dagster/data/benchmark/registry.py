"""The table of FoMo-in-Flux's 63 datasets (arXiv 2408.14471): what each is and should hold.

It only describes the benchmark. It neither looks for files (`release.py` does) nor declares
datasets. `registry.yaml` next to this module is the table itself.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.yaml_files import read_mapping

REGISTRY_FILE = Path(__file__).with_name("registry.yaml")


class BenchmarkDataset(BaseModel):
    """One dataset of the benchmark as its release describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="The handle, in lower case: this project's name of the dataset.")
    folder: str = Field(description="Its name in the release's files, folders and streams.")
    aliases: tuple[str, ...] = Field((), description="Further names that streams may use.")
    task: Literal["classification", "retrieval"]
    role: Literal["adaptation", "held_out"]
    prompt: str = Field(description="Template of evaluation; `{}` stands for the concept.")
    caption: Literal["default", "merged"] = Field(
        description="The info files' field that gives the training text: `default_caption` or "
        "`synthetic_merged_caption`."
    )
    classes: int | None = Field(None, description="In its class list; null: it has no list.")
    stream_concepts: int = Field(0, description="Those of its classes that streams bring.")
    train: int = Field(0, description="Samples of the training split; 0: there is none.")
    test: int
    train_split: str = Field("train", description="What the info files call the training split.")
    test_split: str = "test"
    resized: bool = Field(False, description="Whether the release has copies at 224 pixels.")
    domain: str
    licence: str
    year: int = Field(description="Of publication.")
    released_place: int | None = Field(
        None,
        description="Its place, from 1, among the 41 datasets of the released "
        "`time_incremental_dschunked` streams, which is not always that of its year; null: it is "
        "in no stream.",
    )
    shift_of: str | None = Field(
        None,
        description="The dataset whose classes it shows in pictures of another distribution; null: "
        "none.",
    )
    zero_shot: float = Field(
        description="Published score of OpenCLIP's ViT-B/32 (LAION-2B) in percent: accuracy, or "
        "mean recall@5 for retrieval."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it goes by, its own first."""
        return (self.name, self.folder, *self.aliases)


@cache
def benchmark_datasets() -> Mapping[str, BenchmarkDataset]:
    """Handle → dataset, all 63, in the order of the handles."""
    rows = read_mapping(REGISTRY_FILE)
    return MappingProxyType(
        {name: BenchmarkDataset(name=name, **rows[name]) for name in sorted(rows)}
    )


@cache
def by_any_name() -> Mapping[str, BenchmarkDataset]:
    """Every name (handle, folder, alias) → dataset; a name never means two datasets."""
    named: dict[str, BenchmarkDataset] = {}
    for dataset in benchmark_datasets().values():
        for name in dict.fromkeys(dataset.names):
            if name in named:
                raise ValueError(f"{name!r} names {named[name].name} and {dataset.name}")
            named[name] = dataset
    return MappingProxyType(named)


def find(name: str) -> BenchmarkDataset:
    """The dataset with that handle, folder or alias. Raises `InputError` naming the nearest."""
    try:
        return by_any_name()[name]
    except KeyError:
        raise InputError(
            f"the benchmark has no dataset {name!r}; " + nearest(name, by_any_name())
        ) from None


def canonical_name(name: str, declared: Container[str]) -> str:
    """`name` if a project declares it, else the handle of the benchmark's dataset of that name,
    else `name`: whoever looks it up will report that it does not exist."""
    if name in declared or name not in by_any_name():
        return name
    return by_any_name()[name].name
