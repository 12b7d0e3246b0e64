"""The nodes of a stage's statistics, there where a merge weighs weights by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.work.checkpoints import STATISTICS, WEIGHTS, load_weights
from fomo_dagster.merging.statistics import StatisticsTechnique
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

PRECISION = "fp32"  # whatever the training's: squares of small gradients are far smaller still


@dataclass(frozen=True, kw_only=True)
class StatisticsNode(Node):
    """Statistics of a stage's chunk at the weights that the stage trained."""

    tools: ClassVar[frozenset[str]] = frozenset({"pytorch", "safetensors"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "trained": "the trained weights are others",
        "update": "the chunk brings other samples",
    }
    makes_weights: ClassVar[bool] = True  # merged ones cannot do without
    stage: int
    technique: StatisticsTechnique
    backbone: Backbone
    settings: TrainingSettings
    seed: int
    trained_key: str
    chunk_key: str
    execution: Execution

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.trained_key, self.chunk_key)

    @property
    def declared(self) -> Mapping[str, Any]:
        """Of the training what decides how samples are seen and told apart, not how it trains."""
        return {
            **self.technique.model_dump(mode="json", include=set(self.technique.estimate)),
            **self.settings.model_dump(mode="json", include={"loss", "crop_scale"}),
            "seed": self.seed,
            "stage": self.stage,
        }

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {
            "trained": facts[self.trained_key].data_version,
            "update": facts[self.chunk_key].data_version,
        }
        return {ONLY: of_pixels(Recipe(self.kind, self.version, self.declared, inputs))}

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        from fomo_dagster.graph.work.opened_pools import manifest_pool
        from fomo_dagster.graph.work.statistics import WRITERS
        from fomo_dagster.training.spec import StageSpec

        manifest = read_parquet(context.artifact(self.chunk_key).path(MANIFEST))
        pixels = pixels_of(recipe)
        return WRITERS[self.kind](
            load_weights(self.backbone, context.artifact(self.trained_key).path(WEIGHTS)),
            manifest_pool("update", manifest, context, pixels, self.execution),
            StageSpec(
                settings=self.settings.model_copy(update={"precision": PRECISION}),
                seed=self.seed,
                stage=self.stage,
                execution=self.execution,
            ),
            folder / STATISTICS,
            samples=self.technique.samples,
            batch_size=self.technique.batch_size,
            pixels=pixels,
            progress=context.callbacks.progress,
        )

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return dict(self.declared)


class FisherNode(StatisticsNode):
    """The Fisher information of a stage's chunk, of each parameter."""

    kind: ClassVar[str] = "fisher"

    @property
    def description(self) -> str:
        return f"How well the chunk of stage {self.stage} determines each trained parameter."


class InputsNode(StatisticsNode):
    """The second moments of what linear layers see of a stage's chunk."""

    kind: ClassVar[str] = "inputs"

    @property
    def description(self) -> str:
        return f"What linear layers see of the chunk of stage {self.stage}: second moments."


STATISTICS_NODES = {node.kind: node for node in (FisherNode, InputsNode)}
"""By what a technique says that it takes."""
