"""From manifests and assets to the pools that batches are drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from pyarrow.parquet import ParquetFile

from fomo_dagster.data.decoders import DECODE
from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.formats import extensions
from fomo_dagster.data.index import Index
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import ManifestPool, Pool
from fomo_dagster.data.sources.webdataset.listing import ShardFile
from fomo_dagster.data.sources.webdataset.shard_cache import ShardCache
from fomo_dagster.data.sources.webdataset.streamed import StreamedPool, Visits
from fomo_dagster.data.weighted import WeightedPool
from fomo_dagster.errors import DataError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.files import LISTING_COLUMNS, MANIFEST, STREAMED
from fomo_dagster.graph.core.keys import shards_key, source_key
from fomo_dagster.graph.work.indexes import indexes_of, keeping
from fomo_dagster.graph.work.observations import ListingObservation
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


def manifest_pool(
    name: str,
    manifest: pl.DataFrame,
    context: NodeContext,
    pixels: Pixels,
    execution: Execution | None = None,
) -> Pool:
    """The pool of a MANIFEST table, whose images are in the shards of its datasets. execution: what
    says whether their decoded images are kept."""
    indexes: Mapping[str, Index] = indexes_of(manifest["dataset"].unique(), context)
    if execution is not None:
        indexes = {
            name: keeping(name, index, pixels, execution, context)
            for name, index in indexes.items()
        }
    return ManifestPool(name, manifest, indexes, DECODE[pixels])


def pretraining_pool(key: str, context: NodeContext, execution: Execution, pixels: Pixels) -> Pool:
    """The pool that a pool's asset states; with weights, each dataset draws by itself.

    Raises `DataError` if a streamed dataset's shards are others than when it was made.
    """
    artifact = context.artifact(key)
    parameters = artifact.manifest["recipe"]["parameters"]
    manifest = read_parquet(artifact.path(MANIFEST))
    weights: Mapping[str, int] = parameters.get("weights", {})
    streamed: Mapping[str, Any] = parameters.get("streamed", {})

    def member(dataset: str, name: str) -> Pool:
        if dataset in streamed:
            return _streamed_pool(
                name, dataset, artifact, streamed[dataset], context, execution, pixels
            )
        own = manifest.filter(pl.col("dataset") == dataset)
        return manifest_pool(name, own, context, pixels, execution)

    if weights:
        members = {dataset: member(dataset, f"pretraining {dataset}") for dataset in weights}
        return WeightedPool(members, weights)
    if streamed:
        return member(next(iter(streamed)), "pretraining")
    return manifest_pool("pretraining", manifest, context, pixels, execution)


def pool_captions(key: str, context: NodeContext, execution: Execution) -> Iterator[str]:
    """Every caption of a pool, in little memory. All shards of streamed datasets are fetched.

    Raises what `pretraining_pool` raises.
    """
    artifact = context.artifact(key)
    with ParquetFile(artifact.path(MANIFEST)) as file:
        for batch in file.iter_batches(columns=["captions"]):
            yield from batch.column(0).flatten().to_pylist()
    for dataset, declared in artifact.manifest["recipe"]["parameters"].get("streamed", {}).items():
        cache = _cache(declared, context, execution)
        for shard in _present(dataset, artifact, context):
            yield from cache.samples(shard)["captions"].explode()


def _streamed_pool(
    name: str,
    dataset: str,
    artifact: Artifact,
    declared: Mapping[str, Any],
    context: NodeContext,
    execution: Execution,
    pixels: Pixels,
) -> Pool:
    visits = Visits(declared["samples_per_visit"], declared["shards_at_once"])
    shards = _present(dataset, artifact, context)
    cache = _cache(declared, context, execution)
    decoding = Decoding.from_data(declared)
    return StreamedPool(name, shards, visits, cache, decoding, DECODE[pixels])


def _present(dataset: str, artifact: Artifact, context: NodeContext) -> Sequence[ShardFile]:
    """The shards of a pool's streamed dataset, where they lie now."""
    listing = read_parquet(artifact.path(STREAMED)).filter(dataset=dataset)
    files = context.observe(source_key(dataset)).of(ListingObservation).files
    present = [(file.name, file.size, file.version) for file in files]
    if present != listing.select(*LISTING_COLUMNS).rows():
        raise DataError(
            f"the shards of dataset {dataset!r} changed since its pool was made: "
            f"materialise {shards_key(dataset)}, and what follows it, again"
        )
    return files


def _cache(declared: Mapping[str, Any], context: NodeContext, execution: Execution) -> ShardCache:
    return ShardCache(
        context.home.cache / "streamed",
        int(execution.shard_cache_gib * 2**30),
        tuple(declared["image_extensions"] or extensions()),
    )
