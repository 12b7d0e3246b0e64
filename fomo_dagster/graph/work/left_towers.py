"""Towers that a method leaves as θ₀ has them: their features are θ₀'s, and encoded once.

Whether a tower is θ₀'s is looked up in the weights themselves, bit for bit: a stage may start from
weights of another method, and a merge may round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fomo_dagster.data.pixel_rules import PARAMETER
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.merging.groups import tower_of
from fomo_dagster.methods.declaration import Tower
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from fomo_dagster.data.index import Index
    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.graph.core.context import NodeContext

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class LeftTowers:
    """towers: what the method leaves. base_key: of θ₀, whose they are."""

    base_key: str
    towers: frozenset[Tower]

    def owner(self, tower: Tower, checkpoint: Artifact, context: NodeContext) -> Artifact | None:
        """θ₀'s artifact, where the tower is left and a checkpoint has it bit for bit."""
        head = context.heads.read(self.base_key) if tower in self.towers else None
        base = context.store.open(*head.artifacts[ONLY]) if head is not None else None
        if base is None or checkpoint.digest == base.digest:
            return base
        return base if _is_same(tower, checkpoint.path(WEIGHTS), base.path(WEIGHTS)) else None


NOTHING_LEFT = LeftTowers("", frozenset())


@lru_cache(maxsize=64)  # asked for each dataset of a stage
def _is_same(tower: Tower, one: Path, other: Path) -> bool:
    import torch
    from safetensors import safe_open

    with safe_open(one, "pt") as of_one, safe_open(other, "pt") as of_other:
        names, others = (
            [name for name in file.keys() if tower_of(name) == tower]  # noqa: SIM118
            for file in (of_one, of_other)
        )
        pairs = ((of_one.get_tensor(name), of_other.get_tensor(name)) for name in names)
        return names == others and all(
            (a.dtype, a.shape) == (b.dtype, b.shape)
            and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
            for a, b in pairs
        )


class Features(NamedTuple):
    """features: (N, D). cost: `flops`; empty where they were there, or cannot be counted."""

    features: Tensor
    cost: Mapping[str, int]


def image_features(
    dataset: str, samples: pl.DataFrame, index: Index, *, owner: Artifact, encoder: Encoder,
    context: NodeContext,
) -> Features:  # fmt: skip
    """`Encoder.images` of samples, kept in the store as those of the weights that own the tower."""
    from safetensors.torch import load_file, save_file

    spent: dict[str, int] = {}
    model = encoder.model

    def make(folder: Path) -> Mapping[str, int]:
        features = encoder.images(dataset, samples, index)
        save_file({"features": features.contiguous()}, folder / FEATURES)
        spent.update(encoding_flops(model.architecture, context.home.cache, images=samples.height))
        return spent

    parameters = {
        PARAMETER: int(encoder.pixels),
        "precision": encoder.precision,
        "size": model.image_size,
        "mean": list(model.mean),
        "std": list(model.std),
        "resize_mode": model.resize_mode,
        "interpolation": model.interpolation,
    }
    inputs = {"checkpoint": owner.digest, "images": digest_of(samples["digest"].to_list())}
    artifact = context.get_or_make(Recipe("image_features", 1, parameters, inputs), make)
    return Features(load_file(artifact.path(FEATURES))["features"], spent)
