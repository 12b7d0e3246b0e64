"""The declaration of a stream: its concepts, their order, and how it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from fomo_dagster.data.dataset import DatasetName, DatasetSettings, declared_names
from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.data.sources.declared import ALLOW_OUTSIDE, Splits
from fomo_dagster.data.sources.folder.source import FolderLayout
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.streams.entries import canonical_entry


def _canonical(entry: str, info: ValidationInfo) -> str:
    return canonical_entry(entry, declared_names(info))


StreamEntry = Annotated[str, AfterValidator(_canonical)]
"""`dataset+++concept`, the dataset as in `DatasetName`."""

Direction: TypeAlias = Literal[
    "rare_first", "frequent_first", "easy_first", "hard_first", "oldest_first", "newest_first"
]
DIRECTIONS: Mapping[str, tuple[Direction, Direction]] = MappingProxyType(
    {
        "frequency": ("rare_first", "frequent_first"),
        "performance": ("easy_first", "hard_first"),
        "time_incremental": ("oldest_first", "newest_first"),
    }
)
"""Order → the two ways that it can go, that of the benchmark's released stream first."""


class Arriving(DatasetSettings, FolderLayout):
    """Declares the datasets of a growing stream: what an entry does not say itself."""

    splits: Splits | None = at_default_left_out(
        None,
        description="Which of an entry's splits make up ours; by default the usual names are "
        "known. {}: an entry has no splits.",
    )
    test_share: float = Field(
        0.2, ge=0, lt=1, description="Share held out of an entry that has no test split."
    )
    allow_outside: bool = ALLOW_OUTSIDE


ARRANGED = {
    "order", "direction", "reverse", "interleaved", "starts", "seed", "stages", "cut", "positions",
}  # fmt: skip
"""What arranges a stream that does not grow."""


class Stream(Declaration):
    """The order in which concepts arrive, and how it is cut into the chunks of the stages."""

    name: str | None = Field(
        None, description="Names the stream's assets. Experiments that share a stream share them."
    )
    datasets: tuple[DatasetName, ...] | None = Field(
        None, description="Use all concepts of these datasets."
    )
    concepts: tuple[StreamEntry, ...] | None = Field(
        None, description="Use these concepts: entries `dataset+++concept`."
    )
    file: Path | None = Field(None, description="A JSON list of such entries.")
    growing: Path | None = Field(
        None,
        description="A folder in which data arrives. Each subfolder (a folder per class) or table "
        "is a stage, in the order of names.",
    )
    arriving: Arriving = Field(Arriving(), description="Declares the datasets of a growing stream.")
    order: Literal[
        "as_listed", "random", "performance", "frequency", "similarity", "time_incremental",
        "dataset_incremental",
    ] = Field(
        "as_listed",
        description="performance: by θ₀'s score of the concept. frequency: by how many captions "
"of the pretraining pool name the concept. similarity: each concept is "
"followed by the nearest one in θ₀'s text embeddings. time_incremental: "
"datasets by their `year`. dataset_incremental: one stage per dataset.",
    )  # fmt: skip
    direction: Direction | None = Field(
        None,
        description="For frequency: rare_first (default) or frequent_first. For performance: "
        "easy_first (default) or hard_first. For time_incremental: oldest_first "
        "(default) or newest_first.",
    )
    reverse: bool = Field(
        False, description="Reverse any order, concept by concept. Not with `direction`."
    )
    interleaved: bool = Field(
        False, description="For time_incremental: mix the concepts of all datasets of a year."
    )
    starts: int = Field(
        1, ge=1, le=1000,
        description="For similarity: try this many seeded starts, and keep the path with the "
"greatest similarity.",
    )  # fmt: skip
    seed: int = Field(0, description="Seed of what an order leaves open; as_listed leaves nothing.")
    stages: int | None = Field(
        None, ge=0, le=999,
        description="Number of stages T. Leave it out if the order or `positions` gives it. 0: "
"train nothing and evaluate only θ₀.",
    )  # fmt: skip
    cut: Literal["concepts", "samples"] = Field(
        "concepts",
        description="What the chunks have equally many of: concepts, or training samples.",
    )
    positions: tuple[int, ...] | None = Field(
        None,
        description="Instead of stages: the concepts, counted from 1, where chunks 2..T begin.",
    )

    @model_validator(mode="after")
    def _has_one_origin(self) -> Stream:
        if self.name is not None:
            check_safe_name(self.name)
        origins = ("datasets", "concepts", "file", "growing")
        given = [k for k in origins if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(origins)} must be given, not {given}")
        return self

    @model_validator(mode="after")
    def _grows_or_is_ordered(self) -> Stream:
        if self.growing is None:
            if "arriving" in self.model_fields_set:
                raise ValueError("arriving applies to growing streams only: leave it out")
            return self
        if self.name is None:
            raise ValueError(
                "a growing stream needs a name: it is part of its datasets' names, so "
                "renaming the experiment computes nothing again"
            )
        arranged = self.model_fields_set & ARRANGED
        given = sorted(
            k for k in arranged if getattr(self, k) != type(self).model_fields[k].default
        )
        if given:
            raise ValueError(
                "a growing stream follows the order of its entries' names, one stage each: "
                f"leave out {', '.join(given)}"
            )
        return self

    @model_validator(mode="after")
    def _is_cut_one_way(self) -> Stream:
        if self.growing is not None:
            return self
        if self.order == "dataset_incremental":
            if self.positions is not None or self.cut != "concepts":
                raise ValueError(
                    "dataset_incremental has one stage per dataset: leave out cut and positions"
                )
        elif (self.stages is None) == (self.positions is None):
            raise ValueError("exactly one of stages, positions must be given")
        elif self.positions is not None and self.cut != "concepts":
            raise ValueError("cut goes with stages, not with positions")
        if self.positions is not None and not 1 <= len(self.positions) <= 998:
            raise ValueError("positions are where chunks 2..T begin: give 1 to 998 of them")
        return self

    @model_validator(mode="after")
    def _says_what_its_order_uses(self) -> Stream:
        if self.interleaved and self.order != "time_incremental":
            raise ValueError(f"interleaved goes with order: time_incremental, not {self.order}")
        if self.starts > 1 and self.order != "similarity":
            raise ValueError(f"starts goes with order: similarity, not {self.order}")
        return self

    @model_validator(mode="after")
    def _goes_one_way(self) -> Stream:
        if self.direction is None:
            return self
        ways = DIRECTIONS.get(self.order)
        if ways is None:
            raise ValueError(
                f"direction goes with order: {', '.join(DIRECTIONS)}, not with {self.order}: "
                "use reverse, which reverses any order"
            )
        if self.direction not in ways:
            raise ValueError(
                f"direction of order: {self.order} is {' or '.join(ways)}, not {self.direction}"
            )
        if self.reverse:
            raise ValueError(
                f"direction already says which way order: {self.order} goes: leave out "
                "reverse, which would turn it around again"
            )
        return self

    @property
    def turned(self) -> bool:
        """Whether a measured order runs against the released one's direction."""
        return self.direction is not None and self.direction != DIRECTIONS[self.order][0]
