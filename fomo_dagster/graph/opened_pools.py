"""From manifests and assets to the pools that batches are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from fomo_dagster.data.pools import ManifestPool, Pool
from fomo_dagster.data.weighted import WeightedPool
from fomo_dagster.graph.data_nodes import MANIFEST

if TYPE_CHECKING:
    from fomo_dagster.graph.workshop import Workshop


def manifest_pool(name: str, manifest: pl.DataFrame, workshop: Workshop) -> Pool:
    """The pool of a MANIFEST table, whose images stand in the shards of its datasets."""
    return ManifestPool(name, manifest, workshop.indexes(manifest["dataset"].unique()))


def pretraining_pool(key: str, workshop: Workshop) -> Pool:
    """The pool that a pool's asset states; with weights, each dataset draws by itself."""
    artifact = workshop.artifact(key)
    manifest = pl.read_parquet(artifact.path(MANIFEST))
    weights: Mapping[str, int] = artifact.manifest["recipe"]["parameters"].get("weights", {})
    if not weights:
        return manifest_pool("pretraining", manifest, workshop)
    members = {
        dataset: manifest_pool(
            f"pretraining {dataset}", manifest.filter(pl.col("dataset") == dataset), workshop
        )
        for dataset in weights
    }
    return WeightedPool(members, weights)
