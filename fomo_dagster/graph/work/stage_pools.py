"""The pools of one stage, opened: its chunk, what is kept of earlier ones, the pretraining pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from fomo_dagster.data.buffer import select
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import Pool
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.schema import Buffer
from fomo_dagster.graph.core.files import FEATURES, MANIFEST
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.graph.work.opened_pools import manifest_pool, pretraining_pool
from fomo_dagster.parquet import read_parquet

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class StagePools:
    """The pools that a stage draws from, by name, and the manifests that they are made of."""

    pools: Mapping[str, Pool]
    chunk: pl.DataFrame
    """What the stage brings."""
    earlier: Sequence[pl.DataFrame]
    """What the stages before brought, where there is a buffer."""
    kept: pl.DataFrame
    """The buffer, of the earlier ones."""
    keep: Callable[[Sequence[pl.DataFrame]], pl.DataFrame]
    """Chooses what the buffer holds after some chunks."""

    @property
    def kept_after(self) -> pl.DataFrame:
        """The buffer of the next stage."""
        return self.keep([*self.earlier, self.chunk])


def open_pools(
    chunk_key: str,
    earlier_keys: Sequence[str],
    pool_key: str | None,
    *,
    buffer: Buffer,
    buffer_features: Mapping[str, str],
    buffer_losses: Callable[[], pl.DataFrame],
    seed: int,
    execution: Execution,
    context: NodeContext,
    pixels: Pixels,
) -> StagePools:
    """Open what the assets of these keys hold. buffer_features: dataset → the key of the features
    that the buffer is chosen by, if it is. buffer_losses: the losses that it is chosen by, if it
    is: of every sample that came before, with its dataset and key. pixels: how images are decoded.
    Raises what reading it raises."""

    def manifest(key: str) -> pl.DataFrame:
        return read_parquet(context.artifact(key).path(MANIFEST))

    def stored(dataset: str) -> pl.DataFrame:
        return index_of(dataset, context).rows("train")

    def features(dataset: str) -> pl.DataFrame:
        return read_parquet(context.artifact(buffer_features[dataset]).path(FEATURES))

    def keep(chunks: Sequence[pl.DataFrame]) -> pl.DataFrame:
        return select(
            chunks, buffer.capacity, buffer.selection, seed,
            capacity_mib=buffer.capacity_mib, sizes=stored, features=features,
            losses=lambda dataset: buffer_losses().filter(dataset=dataset),
        )  # fmt: skip

    chunk, earlier = manifest(chunk_key), [manifest(key) for key in earlier_keys]
    kept = keep(earlier)
    pools = {"update": manifest_pool("update", chunk, context, pixels, execution)}
    if earlier:
        pools["buffer"] = manifest_pool("buffer", kept, context, pixels, execution)
    if pool_key is not None:
        pools["pretraining"] = pretraining_pool(pool_key, context, execution, pixels)
    return StagePools(pools=pools, chunk=chunk, earlier=earlier, kept=kept, keep=keep)
