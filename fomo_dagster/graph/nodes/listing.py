"""The node of a streamed dataset: the list of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.webdataset.listing import listing_digest
from fomo_dagster.data.sources.webdataset.source import WebDatasetSource
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey, identity
from fomo_dagster.graph.core.files import LISTING, LISTING_COLUMNS
from fomo_dagster.graph.core.keys import DATASETS, source_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import StreamedDetails
from fomo_dagster.graph.work.observations import ListingObservation
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class ObserveStream:
    """Lists a streamed dataset's shards: names, sizes, and the store's checksums or times."""

    name: str
    dataset: Dataset
    base: Path

    def __call__(self, context: NodeContext) -> ListingObservation:
        declared = self.dataset.source
        assert isinstance(declared, WebDatasetSource)
        files, notes = declared.list_tars(self.name, self.base)
        return ListingObservation(data_version=listing_digest(files), warnings=notes, files=files)


@dataclass(frozen=True, kw_only=True)
class StreamedNode(Node):
    """The list of a streamed dataset's shards. None of them is read."""

    kind: ClassVar[str] = "listing"
    details: ClassVar[type[Details]] = StreamedDetails
    group: ClassVar[str] = DATASETS
    tools: ClassVar[frozenset[str]] = frozenset({"webdataset", "parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "source": "its source brings other samples",
    }
    name: str
    dataset: Dataset

    @property
    def description(self) -> str:
        return "The list of a streamed dataset's shards. Their content is not read."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (source_key(self.name),)

    @property
    def declared(self) -> Mapping[str, Any]:
        """How positions are spread over shards, which is the pool's to know."""
        from fomo_dagster.data.sources.webdataset.members import RULES

        declared = self.dataset.source.model_dump(
            mode="json", include={"image_extensions", "samples_per_visit", "shards_at_once"}
        )
        return {**declared, "tars": RULES, **self.dataset.decoding.as_data()}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        listing = facts[source_key(self.name)].data_version
        return {ONLY: Recipe(self.kind, self.version, {}, {"source": listing})}

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        files = context.observe(source_key(self.name)).of(ListingObservation).files
        rows = [(file.name, file.size, file.version) for file in files]
        pl.DataFrame(rows, schema=LISTING_COLUMNS, orient="row").write_parquet(folder / LISTING)
        return {"shards": len(files), "bytes": sum(file.size or 0 for file in files)}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        return Facts(identity(recipes), StreamedDetails(streamed=self.declared))

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        shards = read_parquet(outcome.artifacts[ONLY].path(LISTING))
        return {
            "shards": shards.height,
            "gibibytes": round(sum(size or 0 for size in shards["size"]) / 2**30, 2),
            "first_shards": shards.head(5),
        }
