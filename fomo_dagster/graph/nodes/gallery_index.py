"""The node of a gallery's index, by which a search needs not look at every row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.galleries.declaration import Hnsw
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import GALLERIES, index_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.gallery import (
    GalleryDetails,
    GalleryNode,
    earlier_of,
    first_rows_of,
)
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.roots import GALLERY_INDEX

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

RECALL = "recall.json"


@dataclass(frozen=True, kw_only=True)
class GalleryIndexDetails(Details):
    """weights, earlier: as of `GalleryDetails`, of indexes. recall: in percent; None where there is
    nothing to find. queries: with how many it was measured."""

    weights: str
    earlier: list[list[str]] = field(default_factory=list)
    recall: float | None = None
    queries: int = 0


@dataclass(frozen=True, kw_only=True)
class GalleryIndexNode(Node):
    """An index of a gallery's embeddings, with its recall against exact search."""

    kind: ClassVar[str] = GALLERY_INDEX
    group: ClassVar[str] = GALLERIES
    details: ClassVar[type[Details]] = GalleryIndexDetails
    tools: ClassVar[frozenset[str]] = frozenset({"faiss"})
    input_changes: ClassVar[Mapping[str, str]] = {"gallery": "its gallery was embedded anew"}
    gallery: GalleryNode
    settings: Hnsw

    @classmethod
    def of(cls, gallery: GalleryNode) -> GalleryIndexNode | None:
        """The index that a gallery declares; None without one."""
        settings = gallery.gallery.index
        if settings is None:
            return None
        return cls(key=index_key(gallery.key), gallery=gallery, settings=settings)

    @property
    def description(self) -> str:
        return f"An index (HNSW) of {self.gallery.key}, and how much of an exact search it finds."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.gallery.key,)

    @property
    def declared(self) -> Mapping[str, Any]:
        return self.settings.model_dump(mode="json")

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {"gallery": facts[self.gallery.key].data_version}
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        facts = context.facts_there([self.gallery.key]).get(self.gallery.key)
        weights = "" if facts is None else facts.of(GalleryDetails).weights
        head = context.heads.read(self.key)
        earlier = [] if head is None else earlier_of(head, weights)
        details = GalleryIndexDetails(weights=weights, earlier=earlier)
        return Facts(super().predict(recipes, context).data_version, details)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        predicted = self.predict(recipes, context)
        details = replace(predicted.of(GalleryIndexDetails), **_recall(artifacts))
        return Facts(predicted.data_version, details)

    @property
    def needs(self) -> Needs:
        return Needs(memory_gib=self.gallery.execution.memory_gib)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        from fomo_dagster.galleries.files import EMBEDDINGS, INDEX, EmbeddingsReader
        from fomo_dagster.galleries.hnsw import Recall, build_index

        gallery = context.artifact(self.gallery.key)
        embeddings = EmbeddingsReader(gallery.path(EMBEDDINGS))
        recall = Recall(None, 0)
        # Of a piece, none: with the next one it would be built again.
        if embeddings.rows and first_rows_of(gallery) is None:
            progress = context.callbacks.progress
            recall = build_index(embeddings, self.settings, folder / INDEX, progress)
        (folder / RECALL).write_text(json.dumps(asdict(recall)))
        return {"samples": embeddings.rows}

    def samples(self, facts: FactsByKey) -> int | None:
        return self.gallery.samples(facts)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("gallery_indexes",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        of = facts[self.gallery.key].of(GalleryDetails)
        row = {
            "gallery": self.gallery.loaded.name, "release_name": of.release, "release": of.number,
            **self.declared, "rows": of.rows, "dimensions": of.dimensions, **_recall(artifacts),
        }  # fmt: skip
        yield "gallery_indexes", pl.DataFrame([row], schema=dict(SCHEMAS["gallery_indexes"]))

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        found = _recall(outcome.artifacts)
        shown: dict[str, Shown] = {"queries": found["queries"]}
        if found["recall"] is not None:
            shown["recall_at_10"] = round(found["recall"], 2)
        return shown


def _recall(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifacts[ONLY].path(RECALL).read_text())
    return found
