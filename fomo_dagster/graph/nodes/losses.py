"""The node of how badly what a stage starts from knows what earlier stages brought, which is there
where its buffer is chosen by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.files import MANIFEST, SAMPLE
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.features import PRECISION
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

LOSSES = "losses.parquet"
OF_STAGE = "stage {:03d}"  # the artifact of what a stage brought


@dataclass(frozen=True, kw_only=True)
class LossesNode(Node):
    """The losses of what stages before one brought, by the weights that this starts from; an
    artifact for each of them."""

    kind: ClassVar[str] = "losses"
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "checkpoint": "the stage starts from other weights",
        "chunk": "an earlier stage brought other samples",
    }
    makes_weights: ClassVar[bool] = True  # it is part of what the method costs
    stage: int
    backbone: Backbone
    checkpoint_key: str
    chunk_keys: tuple[str, ...]  # of stages 1..stage - 1
    execution: Execution

    @property
    def description(self) -> str:
        return (
            f"How badly what stage {self.stage} starts from knows the texts of what earlier stages "
            "brought."
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.checkpoint_key, *self.chunk_keys)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"precision": PRECISION}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        checkpoint = facts[self.checkpoint_key].data_version
        return {
            OF_STAGE.format(stage): of_pixels(
                Recipe(
                    self.kind, self.version, self.declared,
                    {"checkpoint": checkpoint, "chunk": facts[key].data_version},
                )
            )
            for stage, key in enumerate(self.chunk_keys, start=1)
        }  # fmt: skip

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.evaluation.own_losses import own_losses
        from fomo_dagster.graph.work.manifest_features import image_features_of, texts_of
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        (key,) = (
            key for n, key in enumerate(self.chunk_keys, start=1) if OF_STAGE.format(n) == name
        )
        chunk = read_parquet(context.artifact(key).path(MANIFEST))
        encoder = encoder_of(
            self.backbone, context.artifact(self.checkpoint_key), PRECISION, self.execution,
            context, pixels_of(recipe),
        )  # fmt: skip
        texts, own = texts_of(chunk)
        scale = float(encoder.model.module.logit_scale.detach().exp())
        losses = own_losses(
            image_features_of(encoder, chunk, context), encoder.texts(texts), own, scale
        )
        chunk.select(*SAMPLE, pl.Series("loss", losses.numpy())).write_parquet(folder / LOSSES)
        architecture, counted = encoder.model.architecture, {"texts": len(texts)}
        flops = encoding_flops(architecture, context.home.cache, images=chunk.height, **counted)
        return {"samples": chunk.height, **flops, **meter.costs()}

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        losses = {n: read_parquet(one.path(LOSSES)) for n, one in outcome.artifacts.items()}
        return {
            f"mean_loss_of_{n}": float(of["loss"].to_numpy().mean()) for n, of in losses.items()
        }


def buffer_losses(keys: Sequence[str], *, since: bool, context: NodeContext) -> pl.DataFrame:
    """dataset, key and loss of what was brought before a stage. keys: of the losses of stage 2 and
    all that follow, up to its own. since: not the loss, but how much it has grown since the stage
    that brought the sample was over."""
    import polars as pl

    stages = [OF_STAGE.format(stage) for stage, _ in enumerate(keys, start=1)]
    now = pl.concat(_read(keys[-1], name, context) for name in stages)
    if not since:
        return now
    then = pl.concat(_read(key, name, context) for key, name in zip(keys, stages, strict=True))
    both = now.join(then, on=SAMPLE, suffix="_then", maintain_order="left")
    return both.select(*SAMPLE, loss=pl.col("loss") - pl.col("loss_then"))


def _read(key: str, name: str, context: NodeContext) -> pl.DataFrame:
    return read_parquet(context.artifact(key, name).path(LOSSES))
