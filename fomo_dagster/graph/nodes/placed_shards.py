"""The nodes of datasets whose images stay where they are: tars indexed in place, or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.declarations import Dataset, WebDatasetSource
from fomo_dagster.errors import DataError
from fomo_dagster.graph.core.facts import ONLY, Facts, FactsByKey, identity
from fomo_dagster.graph.core.files import LISTING, LISTING_COLUMNS
from fomo_dagster.graph.core.keys import source_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.shards import (
    CONTACT_SHEET,
    QUARANTINE,
    SEEN,
    DatasetSource,
    ShardsNode,
    contact_sheet_of,
    facts_of_samples,
    with_counts,
)
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.data.webdataset.indexed import IndexedTar
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class ObserveTars:
    """Looks at a dataset's tars; those that are new or changed are read once."""

    name: str
    dataset: Dataset
    base: Path

    def __call__(self, context: NodeContext) -> Facts:
        from fomo_dagster.data.webdataset.indexed import IndexedTars, version_of

        declared = self.dataset.source
        assert isinstance(declared, WebDatasetSource)
        source = IndexedTars(
            declared.patterns,
            self.base,
            declared.images,
            concept=self.name,
            test_share=declared.test_share,
            splits=declared.splits,
            decoding=self.dataset.decoding,
            cache=context.home.cache / "tars",
            progress=context.progress,
        )
        tars = source.tars()
        source.check_usable(tars)
        warnings = source.remarks(tars)
        details = {"source": source, "tars": tars, "classes": (), "warnings": warnings}
        return Facts(version_of(tars), details)


@dataclass(frozen=True, kw_only=True)
class ObserveStream:
    """Lists a streamed dataset's shards: names, sizes, and the store's checksums or times."""

    name: str
    dataset: Dataset
    base: Path

    def __call__(self, context: NodeContext) -> Facts:
        from fomo_dagster.data.webdataset.listing import list_shards, listing_digest
        from fomo_dagster.data.webdataset.shard_splits import split_shards

        declared = self.dataset.source
        assert isinstance(declared, WebDatasetSource)
        listed = list_shards(declared.patterns, self.base)
        splits = split_shards(
            [file.name for file in listed], declared.splits, f"the dataset {self.name!r}"
        )
        files = [file for file in listed if splits.of.get(file.name) == "train"]
        if not files:
            raise DataError(
                f"dataset {self.name!r}: none of its {len(listed)} shards is for training, and "
                "what is streamed is good for nothing else: say with `splits` which are"
            )
        return Facts(listing_digest(files), {"files": files, "warnings": splits.notes})


@dataclass(frozen=True, kw_only=True)
class StreamedNode(Node):
    """The list of a streamed dataset's shards, without a look into any."""

    kind: ClassVar[str] = "listing"
    name: str
    dataset: Dataset

    @property
    def inputs(self) -> tuple[str, ...]:
        return (source_key(self.name),)

    @property
    def declared(self) -> Mapping[str, Any]:
        """How positions are spread over shards, which is the pool's to know."""
        from fomo_dagster.data.webdataset.members import RULES

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

        files = context.observe(source_key(self.name)).details["files"]
        rows = [(file.name, file.size, file.version) for file in files]
        pl.DataFrame(rows, schema=LISTING_COLUMNS, orient="row").write_parquet(folder / LISTING)
        return {"shards": len(files), "bytes": sum(file.size or 0 for file in files)}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        return Facts(identity(recipes), {"streamed": self.declared})


@dataclass(frozen=True, kw_only=True)
class PlacedNode(ShardsNode):
    """The index of a dataset's tars, which holds no image; identified by its content."""

    @property
    def _parameters(self) -> dict[str, Any]:
        source = self.dataset.source
        assert isinstance(source, WebDatasetSource)
        splits = {} if source.splits is None else {"splits": source.splits}
        return {
            "in_place": True,
            "concept": self.name,
            "test_share": source.test_share,
            **splits,
            **self.dataset.decoding.as_data(),
        }

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.data.index import write_index
        from fomo_dagster.data.samples import QUARANTINE as QUARANTINE_COLUMNS
        from fomo_dagster.data.shards import SEEN as SEEN_COLUMNS
        from fomo_dagster.data.webdataset.indexed import PlacedIndex
        from fomo_dagster.graph.core.files import PLACED_SHARDS

        details = context.observe(source_key(self.name)).details
        source, tars = details["source"], details["tars"]
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
        from fomo_dagster.data.webdataset.indexed import REASONS_NAMED, reasons

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
        details = context.observe(source_key(self.name)).details
        return facts_of_samples(details["source"].index(details["tars"]).samples)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.data.index import Index

        found = facts_of_samples(Index(artifacts[ONLY].folder).sample_table)
        return with_counts(found, artifacts[ONLY])

    def _bytes(self, artifact: Artifact, facts: FactsByKey) -> int:
        tars: Sequence[IndexedTar] = facts[source_key(self.name)].details["tars"]
        return sum(tar.place.status.size for tar in tars)

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
        tars: Sequence[IndexedTar] = facts[source_key(self.name)].details["tars"]
        return sum(tar.samples for tar in tars)


def is_in_place(dataset: Dataset) -> bool:
    """Whether the dataset's images stay where they are."""
    return isinstance(dataset.source, WebDatasetSource)


def is_streamed(dataset: Dataset) -> bool:
    """Whether nobody knows the dataset's samples."""
    return isinstance(dataset.source, WebDatasetSource) and not dataset.source.index


def nodes_of(dataset: Dataset) -> tuple[Callable[..., Any], Callable[..., Node]]:
    """The look at a dataset's source and the node of its images, by how these are come by."""
    if is_streamed(dataset):
        return ObserveStream, StreamedNode
    if is_in_place(dataset):
        return ObserveTars, PlacedNode
    return DatasetSource, ShardsNode
