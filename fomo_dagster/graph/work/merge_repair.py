"""The correction of merged weights, on samples of the stage that trained the newest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.merging.technique import Repair, Technique
from fomo_dagster.parquet import read_parquet

if TYPE_CHECKING:
    from fomo_dagster.data.pools import Pool
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.merging.repair import Calibration
    from fomo_dagster.models.backbones import Model

POOL = "calibration"
ANY_STAGE = 0  # which samples are drawn depends on what the chunk holds, not on when it comes


@dataclass(frozen=True, kw_only=True)
class Repairing:
    """What a merge needs for a repair besides the models."""

    backbone: Backbone
    chunk_key: str

    def __call__(
        self, technique: Technique, models: Sequence[Path], weights: Path, pixels: Pixels,
        context: NodeContext,
    ) -> Mapping[str, int]:  # fmt: skip
        """Correct the merged `weights` in place; gives the `flops` that it took. pixels: how images
        are decoded and resized."""

        from fomo_dagster.graph.core.files import MANIFEST
        from fomo_dagster.graph.work.checkpoints import load_weights
        from fomo_dagster.graph.work.opened_pools import manifest_pool
        from fomo_dagster.merging.repair import repair

        assert technique.repair is not None
        manifest = read_parquet(context.artifact(self.chunk_key).path(MANIFEST))
        merged = load_weights(self.backbone, weights)
        architecture = merged.architecture
        samples = calibration_samples(
            merged, manifest_pool(POOL, manifest, context, pixels), technique.repair, pixels
        )
        del merged  # one model is held at a time
        repair(
            lambda path: load_weights(self.backbone, path).module.eval(),
            models,
            weights,
            weights,
            samples,
            technique.shares(len(models)),
        )
        passes = (len(models) + 1) * len(samples.images)  # the models', and one that corrects
        return encoding_flops(architecture, context.home.cache, images=passes, texts=passes)


def calibration_samples(model: Model, pool: Pool, declared: Repair, pixels: Pixels) -> Calibration:
    """The first samples of a permutation of the pool that depends only on the seed, each with its
    first caption, as the model sees them in evaluation; all samples if there are fewer. pixels: of
    the pool, too."""
    import torch

    from fomo_dagster.data.transforms import EvaluationTransform
    from fomo_dagster.merging.repair import Calibration

    transform = EvaluationTransform(model.preparation, pixels)
    size = pool.size
    count = declared.samples if size is None else min(declared.samples, size)
    drawn = [pool.sample(declared.seed, ANY_STAGE, position) for position in range(count)]
    return Calibration(
        torch.stack([transform(sample.image) for sample in drawn]),
        model.tokenize([sample.captions[0] for sample in drawn]),
    )
