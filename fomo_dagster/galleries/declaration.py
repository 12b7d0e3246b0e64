"""What the file of a gallery says: what is embedded by what is live, to be searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.dataset import DatasetName
from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.execution import DEVICE, Execution
from fomo_dagster.experiment.names import check_safe_name

FOLDER = "galleries"
FIRST_ROWS = "first_rows"
"""In the recipe of a gallery that has the first rows alone: about how many."""


class GalleryExecution(Declaration):
    """Where and how fast a gallery is embedded. It is never part of identity."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    evaluation_batch_size: int = Field(256, ge=1, description="Samples on the device at once.")
    cpus: int | None = Field(
        None, ge=1, description="Cores of a machine that a cluster sets aside; null: one."
    )
    memory_gib: float | None = Field(
        None, gt=0, description="Memory of a machine that a cluster sets aside; null: none is."
    )

    @field_validator("device")
    @classmethod
    def _can_be_a_device(cls, device: str) -> str:
        if DEVICE.fullmatch(device) is None:
            raise ValueError("a device is auto, cpu, cuda, cuda:N for the N-th from 0, or mps")
        return device

    @property
    def whole(self) -> Execution:
        """As experiments are executed that say the same."""
        return Execution(**self.model_dump())


class Hnsw(Declaration):
    """An index by which a search of millions need not look at each (HNSW, arXiv 1603.09320). It
    finds most of the nearest, not all."""

    type: Literal["hnsw"] = Field(description="hnsw: a graph of neighbours.")
    m: int = Field(32, ge=2, le=256, description="Neighbours that a vector is connected with.")
    ef_construction: int = Field(
        200, ge=1, description="Candidates that are looked at for each vector while it is built."
    )
    ef_search: int = Field(
        64, ge=1, description="Candidates that a search looks at: more find more, and take longer."
    )


class Drift(Declaration):
    """How far what is live is from what embedded a gallery that follows another alias."""

    samples: int = Field(
        5000, ge=4, le=100_000,
        description="Rows of the gallery, evenly spread, that what is live embeds as well.",
    )  # fmt: skip


class Refresh(Declaration):
    """How a gallery gets from one release to the next: by pieces, each of which is kept. A search
    finds the rows that are not embedded anew yet by what embedded them before."""

    rows: int = Field(ge=1, description="About how many rows are a piece.")


class DeclaredGallery(Declaration):
    """A dataset, and the release name whose weights embed it."""

    dataset: DatasetName = Field(description="The dataset, one of `datasets/` or a shipped one.")
    release: str = Field(description="The release name; what is live under it embeds the gallery.")
    follows: str = Field(
        "live",
        description="Which release of that name embeds it: live, or another alias (`fomo alias`), "
        "for embeddings that stay until you move it.",
    )
    split: Literal["all", "train", "test"] = Field(
        "all", description="Which of its samples are in the gallery."
    )
    of: Literal["images", "texts"] = Field(
        "images",
        description="images: each image. texts: each different caption once; of an image without "
        "captions, its concept in the dataset's prompt.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision in which the model computes; embeddings are fp32."
    )
    index: Hnsw | None = Field(
        None, description="An index beside it, for millions of rows; null: searches are exact."
    )
    drift: Drift | None = Field(
        None,
        description="Measure how far what is live is from these embeddings, if `follows` names "
        "another alias; null: not measured.",
    )
    refresh: Refresh | None = Field(
        None, description="Embed it in pieces, each of which is kept; null: all of it at once."
    )
    execution: GalleryExecution = Field(
        GalleryExecution(), description="Where and how fast it is embedded."
    )

    @model_validator(mode="after")
    def _can_drift(self) -> DeclaredGallery:
        if self.drift is not None and self.follows == "live":
            raise ValueError(
                "drift is from what is live, which embeds this gallery: give `follows` an alias of "
                "your own, or leave drift out"
            )
        return self

    @field_validator("release", "follows")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_safe_name(name)

    @field_validator("follows")
    @classmethod
    def _can_be_an_alias(cls, name: str) -> str:
        if name.isdigit():
            raise ValueError(
                f"{name!r} reads like a release's number, which no alias may: name live or an "
                f"alias, such as kept, which `fomo alias NAME kept {name}` gives to that release"
            )
        return name


def reference_of(name: str) -> str:
    """What commands call the gallery of a name."""
    return f"{FOLDER}/{name}"
