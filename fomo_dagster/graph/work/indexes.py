"""The indexes of datasets' shards, opened."""

from __future__ import annotations

from collections.abc import Iterable

from fomo_dagster.data.decoded_cache import DecodedCache
from fomo_dagster.data.index import Index, mean_decoded_size
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.execution import Execution
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


def keeping(
    dataset: str, index: Index, pixels: Pixels, execution: Execution, context: NodeContext
) -> Index:
    """The index, with its decoded images kept if the execution says so; how much they will take is
    said before any is."""
    limit_gib = execution.decoded_cache_gib
    if limit_gib is None or pixels is Pixels.PILLOW:
        return index
    root = context.home.cache / "decoded"
    kept = index.keeping(DecodedCache(root, index.folder.name, int(limit_gib * 2**30)))
    if kept is not index and not (root / index.folder.name).exists():
        mean, images = mean_decoded_size(index), index.samples.height
        context.say(
            [
                f"the decoded images of {dataset} take about {mean * images / 2**30:.2g} GiB in "
                f"{root}, of the {limit_gib:g} that there may be of all (execution."
                "decoded_cache_gib)"
            ]
        )
    return kept


def evaluated_index(
    dataset: str, pixels: Pixels, execution: Execution, context: NodeContext
) -> Index:
    """The index of a dataset that is evaluated, as `keeping` gives it."""
    return keeping(dataset, index_of(dataset, context), pixels, execution, context)
