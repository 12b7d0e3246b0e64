"""The nodes of a stage's training: of itself, of weights that it looks at beside the ones that it
trains, and of a look at what the stage brings."""

from __future__ import annotations

from collections.abc import Sequence

from fomo_dagster.evaluation.label_noise import check_can_look
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.inspection import Inspection
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.graph.build.stream_nodes import StreamNodes
from fomo_dagster.graph.build.weights_over_time import WeightsOverTime
from fomo_dagster.graph.nodes.budget import BudgetNode
from fomo_dagster.graph.nodes.chunk import ChunkNode
from fomo_dagster.graph.nodes.features import FeaturesNode
from fomo_dagster.graph.nodes.inspection import InspectionNode
from fomo_dagster.graph.nodes.kept import KeptNode
from fomo_dagster.graph.nodes.losses import LossesNode
from fomo_dagster.graph.nodes.merged import DeployedNode
from fomo_dagster.graph.nodes.statistics import STATISTICS_NODES
from fomo_dagster.graph.nodes.trained import OtherWeights, TrainedNode
from fomo_dagster.merging.statistics import StatisticsTechnique
from fomo_dagster.methods.online_selection.declaration import Referring


class TrainingNodes(StreamNodes):
    """Trainings, and the weights that preservations and selections refer to."""

    def reference(
        self, loaded: Loaded, stage: int, theta: str, weights: WeightsOverTime
    ) -> OtherWeights | None:
        """The weights that the method's preservation looks at in a stage; the node of another
        backbone is added."""
        preserve = loaded.experiment.method.preserve
        if preserve is None or preserve.reference is None:
            return None
        if isinstance(preserve.reference, Backbone):
            return self.other_weights(loaded, preserve.reference, "method.preserve.teacher")
        is_live = weights.method.start_from == "live"  # else it may be a stage that was refused
        before = weights.start(stage) if is_live else weights.deployed(stage - 1)
        keys = {"initial": theta, "deployed": before}
        return OtherWeights(keys[preserve.reference], self.backbone_of(theta))

    def selecting(self, loaded: Loaded) -> OtherWeights | None:
        """The weights that the selection of samples looks at; their node is added."""
        selection = loaded.experiment.selection
        if not isinstance(selection, Referring):
            return None
        return self.other_weights(loaded, selection.reference, "selection.reference")

    def other_weights(self, loaded: Loaded, backbone: Backbone, declared_at: str) -> OtherWeights:
        """Those of a backbone that is declared beside θ₀."""
        key = self.add_backbone(loaded, backbone, declared_at)
        return OtherWeights(key, self.backbone_of(key))

    def chosen_by(self, loaded: Loaded, stage: int, weights: WeightsOverTime) -> dict[str, str]:
        """Dataset → the key of the features that a stage's buffer is chosen by, whose node is
        added; empty where it is not chosen by features."""
        experiment, theta = loaded.experiment, weights.base_key
        has_buffer = "buffer" in experiment.mixture.of_stage(stage).pools
        if not (experiment.buffer.is_by_features and has_buffer):
            return {}
        preserve = experiment.method.preserve
        leaves = preserve is not None and preserve.leaves_replay_features  # of what is kept next
        keys: dict[str, str] = {}
        for chunk_key in weights.chunk_keys[: stage if leaves else stage - 1]:
            chunk = self.nodes[chunk_key]
            if isinstance(chunk, KeptNode):
                chunk = self.nodes[chunk.chunk_key]
            assert isinstance(chunk, ChunkNode)
            for name in chunk.prompts:
                node = FeaturesNode.of(
                    name, "train", self.backbone_of(theta), theta, experiment.execution
                )
                keys[name] = node.key
                if node.key not in self.nodes:
                    self.add(node)
        return keys

    def losses(self, loaded: Loaded, stage: int, weights: WeightsOverTime) -> tuple[str, ...]:
        """The keys of the losses that a stage's buffer is chosen by, of stages 2..stage, whose last
        node is added; empty where there is no buffer, or it is not chosen by losses."""
        experiment = loaded.experiment
        has_buffer = "buffer" in experiment.mixture.of_stage(stage).pools
        # How much losses grew, later stages ask of every stage.
        is_asked = has_buffer or experiment.buffer.is_since
        if stage == 1 or not (experiment.buffer.is_by_losses and is_asked):
            return ()
        keys = tuple(f"{experiment.name}/losses_{one:03d}" for one in range(2, stage + 1))
        self.add(
            LossesNode(
                key=keys[-1], experiment=experiment.name, stage=stage, backbone=weights.backbone,
                checkpoint_key=weights.start(stage),
                chunk_keys=tuple(weights.chunk_keys[: stage - 1]), execution=experiment.execution,
            )
        )  # fmt: skip
        return keys if has_buffer else ()

    def trained(
        self,
        loaded: Loaded,
        stage: int,
        weights: WeightsOverTime,
        pool_key: str | None,
        budget: BudgetNode | None,
    ) -> TrainedNode:
        """The training of one stage."""
        experiment, theta = loaded.experiment, weights.base_key
        return TrainedNode(
            key=weights.trained(stage), experiment=experiment.name, stage=stage,
            backbone=weights.backbone, settings=experiment, mixture=experiment.mixture,
            buffer=experiment.buffer, buffer_features=self.chosen_by(loaded, stage, weights),
            losses_keys=self.losses(loaded, stage, weights), method=experiment.method,
            seed=experiment.seed, start_key=weights.start(stage), base_key=theta,
            chunk_keys=tuple(weights.chunk_keys[:stage]), pool_key=pool_key,
            trained_keys=tuple(map(weights.trained, range(1, stage))),
            reference=self.reference(loaded, stage, theta, weights),
            selection=experiment.selection, selecting=self.selecting(loaded),
            budget_key=None if budget is None else budget.key, execution=experiment.execution,
            stored_precision=experiment.stored_precision,
        )  # fmt: skip

    def add_merge(self, loaded: Loaded, merge: DeployedNode, weights: WeightsOverTime) -> None:
        """A merge, and before it the statistics that it needs."""
        experiment = loaded.experiment
        for stage, key in enumerate(merge.statistics, start=1):
            assert isinstance(merge.technique, StatisticsTechnique)
            self.add(
                STATISTICS_NODES[merge.technique.statistics](
                    key=key, experiment=experiment.name, stage=stage, technique=merge.technique,
                    backbone=weights.backbone, settings=experiment, seed=experiment.seed,
                    trained_key=weights.trained(stage), chunk_key=weights.chunk_keys[stage - 1],
                    execution=experiment.execution,
                )
            )  # fmt: skip
        self.add(merge)

    def inspection(
        self, loaded: Loaded, settings: Inspection, weights: WeightsOverTime, chunks: Sequence[str]
    ) -> InspectionNode:
        """What a model thinks of what the last of some chunks brings."""
        experiment, stage = loaded.experiment, len(chunks)
        if settings.label_noise:
            check_can_look(f"the inspection of {experiment.name!r}")
        checkpoint = weights.base_key if settings.weights == "initial" else weights.start(stage)
        brings = [self.nodes[key] for key in chunks]
        names = {name for chunk in brings if isinstance(chunk, ChunkNode) for name in chunk.prompts}
        return InspectionNode(
            key=f"{experiment.name}/inspection_{stage:03d}", experiment=experiment.name,
            stage=stage, settings=settings,
            evaluation=experiment.evaluation.located(loaded.base), backbone=weights.backbone,
            checkpoint_key=checkpoint, chunk_keys=tuple(chunks),
            datasets={d: self.add_samples(loaded, d, "stream") for d in sorted(names)},
            execution=experiment.execution,
        )  # fmt: skip
