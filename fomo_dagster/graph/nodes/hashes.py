"""The node of the perceptual hashes of a split of a dataset, which is there where an experiment
looks for near duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import DATASETS, hashes_key, shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

HASHES = "hashes.parquet"
EVERY = 64  # images after which progress is told

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class HashesNode(Node):
    """The hashes of the images of a split; identified by its content."""

    kind: ClassVar[str] = "hashes"
    group: ClassVar[str] = DATASETS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {"samples": "the split has other samples"}
    name: str
    split: Split

    @classmethod
    def of(cls, name: str, split: Split) -> HashesNode:
        """Those of a split of a dataset, or of a view of one."""
        return cls(key=hashes_key(name, split), name=name, split=split)

    @property
    def description(self) -> str:
        return f"Perceptual hashes of the {self.split} images of {self.name}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (shards_key(self.name),)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"split": self.split}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        details = facts[shards_key(self.name)].of(SampleDetails)
        samples = details.test if self.split == "test" else digest_of(details.train)
        return {ONLY: Recipe(self.kind, self.version, self.declared, {"samples": samples})}

    @property
    def needs(self) -> Needs:
        return Needs(spreads=True)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        from fomo_dagster.data.perceptual_hashes import Hashing, hashes_frame, references_of
        from fomo_dagster.data.reading import read_in_order

        index = index_of(self.name, context)
        rows = index.rows(self.split)
        found: list[tuple[int, int] | None] = []
        progress = context.callbacks.progress
        with closing(
            read_in_order(Hashing(index), references_of(rows), context.processes)
        ) as hashes:
            for each in hashes:
                found.append(each)
                if len(found) % EVERY == 0:
                    progress("images", len(found), rows.height)
        hashes_frame(rows["key"], found).write_parquet(folder / HASHES)
        return {"samples": rows.height}

    def samples(self, facts: FactsByKey) -> int | None:
        details = facts[shards_key(self.name)].of(SampleDetails)
        return details.test_samples if self.split == "test" else sum(details.train_samples.values())

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        hashes = read_parquet(outcome.artifacts[ONLY].path(HASHES))
        return {
            "images": hashes.height,
            "different_hashes": hashes["hash"].drop_nulls().n_unique(),
            "without_a_hash": hashes["hash"].null_count(),
        }
