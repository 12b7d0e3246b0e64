"""The indexes of datasets' shards, opened."""

from __future__ import annotations

from collections.abc import Iterable

from fomo_dagster.data.index import Index
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.files import PLACED_SHARDS
from fomo_dagster.graph.core.keys import shards_key, source_key
from fomo_dagster.graph.work.observations import TarsObservation
from fomo_dagster.parquet import read_parquet


def index_of(dataset: str, context: NodeContext) -> Index:
    """The index of a dataset's shards, which may be where the dataset is declared to be."""
    artifact = context.artifact(shards_key(dataset))
    if PLACED_SHARDS not in artifact.manifest["files"]:
        return Index(artifact.folder)
    from fomo_dagster.data.sources.webdataset.indexed import PlacedIndex

    digests = dict(read_parquet(artifact.path(PLACED_SHARDS)).iter_rows())
    source = context.observe(source_key(dataset)).of(TarsObservation).source
    return PlacedIndex(artifact.folder, source.places(digests, context.callbacks.progress))


def indexes_of(datasets: Iterable[str], context: NodeContext) -> dict[str, Index]:
    """The indexes of several datasets' shards, by dataset."""
    return {dataset: index_of(dataset, context) for dataset in sorted(datasets)}
