"""The node of tars that are indexed in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.webdataset.source import WebDatasetSource
from fomo_dagster.errors import DataError
from fomo_dagster.graph.core.facts import ONLY, Facts, FactsByKey
from fomo_dagster.graph.core.keys import source_key
from fomo_dagster.graph.nodes.details import SourceDetails
from fomo_dagster.graph.nodes.shards import (
    CONTACT_SHEET,
    QUARANTINE,
    SEEN,
    ShardsNode,
    contact_sheet_of,
    facts_of_samples,
    with_counts,
)
from fomo_dagster.graph.work.observations import TarsObservation
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class ObserveTars:
    """Looks at a dataset's tars; those that are new or changed are read once."""

    name: str
    dataset: Dataset
    base: Path

    def __call__(self, context: NodeContext) -> TarsObservation:
        from fomo_dagster.data.sources.webdataset.indexed import version_of

        declared = self.dataset.source
        assert isinstance(declared, WebDatasetSource)
        source = declared.index_tars(
            self.name,
            self.base,
            context.home.cache,
            decoding=self.dataset.decoding,
        )
        tars = source.tars(context.callbacks.progress)
        source.check_usable(tars)
        details = SourceDetails(
            samples=sum(tar.samples for tar in tars),
            bytes=sum(tar.place.status.size for tar in tars),
        )
        return TarsObservation(
            data_version=version_of(tars),
            warnings=tuple(source.remarks(tars)),
            details=details,
            source=source,
            tars=tars,
        )


@dataclass(frozen=True, kw_only=True)
class PlacedNode(ShardsNode):
    """The index of a dataset's tars, which holds no image; identified by its content."""

    @property
    def _parameters(self) -> dict[str, Any]:
        split = self.dataset.source.model_dump(mode="json", include={"test_share", "splits"})
        return {
            "in_place": True,
            "concept": self.name,
            **split,
            **self.dataset.decoding.as_data(),
        }

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.data.index import write_index
        from fomo_dagster.data.samples import QUARANTINE as QUARANTINE_COLUMNS
        from fomo_dagster.data.shards import SEEN as SEEN_COLUMNS
        from fomo_dagster.data.sources.webdataset.indexed import PlacedIndex
        from fomo_dagster.graph.core.files import PLACED_SHARDS

        observed = context.observe(source_key(self.name)).of(TarsObservation)
        source, tars = observed.source, observed.tars
        samples, lost, odd = source.index(tars)
        self._check(samples.height, lost)
        write_index(samples, folder, self.dataset.decoding)
        pl.DataFrame(
            {"shard": [tar.name for tar in tars], "digest": [tar.digest for tar in tars]}
        ).write_parquet(folder / PLACED_SHARDS)
        quarantine = lost.with_columns(key=pl.format("{}/{}", "shard", "key").str.strip_suffix("/"))
        quarantine.select(*QUARANTINE_COLUMNS).write_parquet(folder / QUARANTINE)
        odd.select(*SEEN_COLUMNS).write_parquet(folder / SEEN)
        index = PlacedIndex(folder, {tar.name: tar.place for tar in tars})
        record_path(folder, CONTACT_SHEET).write_bytes(contact_sheet_of(index, self.name))
        return {"samples": samples.height, "bytes": sum(tar.place.status.size for tar in tars)}

    def _check(self, samples: int, lost: pl.DataFrame) -> None:
        """Hold what was lost against the limit, in samples: a lost shard is as many as it had."""
        from fomo_dagster.data.sources.webdataset.indexed import REASONS_NAMED, reasons

        count = int(lost["samples"].sum())
        share = count / (samples + count)
        if share > self.dataset.unreadable_limit:
            raise DataError(
                f"{count:,} of {samples + count:,} samples ({share:.2%}) cannot be used"
                f", above unreadable_limit = {self.dataset.unreadable_limit:.2%}: "
                f"{'; '.join(reasons(lost)[:REASONS_NAMED])}. Repair the tars or fetch them again, "
                "or raise the dataset's unreadable_limit"
            )

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        """Exact: whatever cannot be used was found when the tars were looked at."""
        known = self.known(recipes, context)
        if known is not None:
            return known
        observed = context.observe(source_key(self.name)).of(TarsObservation)
        return facts_of_samples(observed.source.index(observed.tars).samples)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.data.index import Index

        found = facts_of_samples(Index(artifacts[ONLY].folder).sample_table)
        return with_counts(found, artifacts[ONLY])

    def _bytes(self, artifact: Artifact, facts: FactsByKey) -> int:
        return facts[source_key(self.name)].of(SourceDetails).bytes

    @property
    def table_names(self) -> tuple[str, ...]:
        """Without the samples: pools are large, and their index is a table already."""
        return ("datasets",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        for table, rows in super().tables(artifacts, facts):
            if table in self.table_names:
                yield table, rows

    def samples(self, facts: FactsByKey) -> int | None:
        return facts[source_key(self.name)].of(SourceDetails).samples
