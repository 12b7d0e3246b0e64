"""The node of what a stage trains on of its chunk, where near duplicates are left out.

It is identified by its content: a stage without near duplicates trains as if nobody had looked for
any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY, Facts, FactsByKey, identity
from fomo_dagster.graph.core.files import MANIFEST, SAMPLE
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.chunk import shown_of_manifest
from fomo_dagster.graph.nodes.near_duplicates import NearDuplicatesNode, found_in
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

LEFT_OUT = "left_out.parquet"


@dataclass(frozen=True, kw_only=True)
class KeptNode(Node):
    """The manifest of a chunk without its near duplicates."""

    kind: ClassVar[str] = "kept"
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "chunk": "the stage brings other samples",
        "near_duplicates": "its near duplicates changed",
    }
    fetched_by_plans: ClassVar[bool] = True  # the training depends on it
    chunk_key: str
    near_key: str

    @classmethod
    def of(cls, near: NearDuplicatesNode) -> KeptNode:
        """Of the chunk whose near duplicates these are."""
        return cls(
            key=f"{near.experiment}/kept_{near.stage:03d}", experiment=near.experiment,
            stage=near.stage, chunk_key=near.chunk_keys[-1], near_key=near.key,
        )  # fmt: skip

    @property
    def description(self) -> str:
        return f"What stage {self.stage} brings, without near duplicates."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.chunk_key, self.near_key)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {
            "chunk": facts[self.chunk_key].data_version,
            "near_duplicates": facts[self.near_key].data_version,
        }
        return {ONLY: Recipe(self.kind, self.version, {}, inputs)}

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        chunk = read_parquet(context.artifact(self.chunk_key).path(MANIFEST))
        found = found_in(context.artifact(self.near_key))
        near = found.of_the_stage.select(SAMPLE).unique()
        kept = chunk.join(near, on=SAMPLE, how="anti", maintain_order="left")
        if kept.is_empty():
            raise InputError(
                f"all {found.samples} samples that stage {self.stage} brings are near "
                "duplicates, so nothing is left to train on: look at them (`fomo duplicates "
                f"{self.experiment} --stage {self.stage}`), and lower near_duplicates.distance, or "
                "leave out near_duplicates.deduplicate"
            )
        kept.write_parquet(folder / MANIFEST)
        near.sort(SAMPLE).write_parquet(folder / LEFT_OUT)
        return {"samples": kept.height}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        known = self.known(recipes, context)
        return known or Facts(identity(recipes), awaited=self.key)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        chunk = recipes[ONLY].inputs["chunk"]
        left_out = read_parquet(artifacts[ONLY].path(LEFT_OUT))
        if left_out.is_empty():
            return Facts(chunk)
        return Facts(digest_of({"chunk": chunk, "left_out": left_out.rows()}))

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact = outcome.artifacts[ONLY]
        left_out = read_parquet(artifact.path(LEFT_OUT))
        return {
            **shown_of_manifest(artifact),
            "left_out": left_out.height,
            "near_duplicates": left_out,
        }
