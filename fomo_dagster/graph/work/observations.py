"""The results of observing datasets' sources, by how their images are accessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fomo_dagster.graph.core.context import Observation
from fomo_dagster.graph.core.shown import Shown

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.data.sources.source import Source
    from fomo_dagster.data.sources.webdataset.indexed import IndexedTar, IndexedTars
    from fomo_dagster.data.sources.webdataset.listing import ShardFile


@dataclass(frozen=True, kw_only=True)
class DatasetObservation(Observation):
    """What the source of a dataset that is not streamed holds.

    classes: those to choose from, where the source names them.
    """

    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScanObservation(DatasetObservation):
    """The samples of a source that was scanned."""

    scan: pl.DataFrame
    unusable: pl.DataFrame
    source: Source

    @property
    def shown(self) -> Mapping[str, Shown]:
        return {
            "concepts": self.scan["concept"].n_unique(),
            "train_samples": int((self.scan["split"] == "train").sum()),
            "test_samples": int((self.scan["split"] == "test").sum()),
        }


@dataclass(frozen=True, kw_only=True)
class TarsObservation(DatasetObservation):
    """A dataset's tars as they lie."""

    source: IndexedTars
    tars: Sequence[IndexedTar]

    @property
    def shown(self) -> Mapping[str, Shown]:
        return {
            "tars": len(self.tars),
            "samples": sum(tar.samples for tar in self.tars),
            "skipped": sum(tar.broken for tar in self.tars),
        }


@dataclass(frozen=True, kw_only=True)
class ListingObservation(Observation):
    """The shards of a streamed dataset that are for training, where they lie now."""

    files: Sequence[ShardFile]

    @property
    def shown(self) -> Mapping[str, Shown]:
        return {"shards": len(self.files)}
