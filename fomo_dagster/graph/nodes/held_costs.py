"""What a stage that is up for release costs, beside what is live: what two gates are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.release import Gates
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.compared_costs import (
    LATENCIES,
    architectures_of,
    compared,
    latencies_recipe,
    time_latencies,
)
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.releases.costs import Compared

OF_BOTH = "architectures"  # a candidate's parameter


@dataclass(frozen=True)
class HeldCosts:
    """evaluation: of the stage."""

    gates: Gates
    evaluation: EvaluationNode

    def parameters(self, live: Mapping[str, Any] | None) -> dict[str, Any]:
        """For a candidate's recipe; none where no gate is about costs. live: the declaration of the
        backbone of what is live, if anything is."""
        if self.gates.cost is None and self.gates.speed is None:
            return {}
        return {OF_BOTH: architectures_of(self.evaluation.backbone, live)}

    def latencies(self, parameters: Mapping[str, Any]) -> Recipe | None:
        """What is to be timed for a candidate of these parameters."""
        if self.gates.speed is None:
            return None
        return latencies_recipe(parameters[OF_BOTH], self.evaluation.settings.precision)

    def time(
        self, recipe: Recipe, live: tuple[Backbone, Artifact], execution: Execution, folder: Path,
        context: NodeContext,
    ) -> None:  # fmt: skip
        """Time the stage and what is live, into a folder. Raises `InputError` where something of
        another architecture went live since."""
        own = self.evaluation
        encoders = [
            encoder_of(backbone, weights, own.settings.precision, execution, context)
            for backbone, weights in (
                (own.backbone, context.artifact(own.checkpoint_key)), live
            )
        ]  # fmt: skip
        if encoders[1].model.architecture != recipe.parameters[OF_BOTH][1]:
            raise InputError(
                f"something else went live while stage {own.stage} of {own.experiment} was to be "
                f"timed: `fomo run {own.experiment}` holds it against that"
            )
        time_latencies(encoders, folder)

    def found(self, recipe: Recipe, context: NodeContext) -> Compared | None:
        """Both costs, by a candidate's recipe; None where no gate is about them, or nothing is
        live."""
        timed = None
        if LATENCIES in recipe.inputs:
            timed = context.store.open(LATENCIES, recipe.inputs[LATENCIES])
        cache = None if self.gates.cost is None else context.home.cache
        return compared(recipe.parameters.get(OF_BOTH), timed, cache)
