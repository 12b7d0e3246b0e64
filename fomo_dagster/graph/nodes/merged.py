"""The nodes of merged weights: those that a stage deploys, and those that a stage starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.work.checkpoints import STATISTICS, WEIGHTS
from fomo_dagster.graph.work.merge_repair import Repairing
from fomo_dagster.merging.over_time import Joint
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.weighting import as_joint
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class DeployedNode(WeightsNode):
    """The weights that a stage serves, where they are merged.

    models: keys, oldest first; the newest is what the stage, or the one before, trained. joint: how
    they are weighed, where all so far are merged at once. repairing: what a technique with a repair
    needs for it. statistics: keys, those of each model's data, for a technique that needs them.
    """

    kind: ClassVar[str] = "deployed"
    tools: ClassVar[frozenset[str]] = frozenset({"safetensors", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "previous": "the weights that the trained ones are merged with are others",
        "trained": "the trained weights are others",
        "models": "the weights that it merges are others",
        "base": "θ₀ is another",
        "calibration": "it is repaired on other samples",
        "statistics": "the statistics of what the weights were trained on are others",
    }
    makes_weights: ClassVar[bool] = True
    stage: int
    technique: Technique
    base_key: str  # θ₀
    models: tuple[str, ...]
    joint: Joint | None = None
    repairing: Repairing | None = None
    statistics: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        return f"The weights that stage {self.stage} serves: {self._merge}."

    @property
    def model_keys(self) -> tuple[str, ...]:
        """What is merged, oldest first."""
        if self.technique.needs_base and self.models[0] == self.base_key:
            return self.models[1:]  # θ₀ beside itself is no model that was trained
        return self.models

    @property
    def effective_technique(self) -> Technique:
        """The technique for just these models."""
        technique, models = self.technique, len(self.model_keys)
        if self.joint is not None:
            weighting, reversed = self.joint.weighting, self.joint.reversed
            return as_joint(technique, models, weighting, reversed=reversed)
        if isinstance(technique, TaskVectorTechnique) and technique.coefficients is not None:
            return technique.model_copy(update={"coefficients": technique.coefficients[-models:]})
        return technique

    @property
    def inputs(self) -> tuple[str, ...]:
        base = (self.base_key,) if self.technique.needs_base else ()
        calibration = (self.repairing.chunk_key,) if self.repairing is not None else ()
        return tuple(dict.fromkeys((*base, *self.model_keys, *self.statistics, *calibration)))

    @property
    def declared(self) -> Mapping[str, Any]:
        technique, weighed = self.technique, dict[str, Any]()
        if self.joint is not None:
            # By name rather than as coefficients, whose last digits are a matter of the machine.
            weighed = self.joint.model_dump(
                mode="json", exclude_defaults=True, exclude={"include_initial"}
            )
            technique = as_joint(self.technique, len(self.model_keys))
        if self.effective_technique.is_weighted and technique.weighted_version > 1:
            weighed["weighted_version"] = technique.weighted_version
        return technique.model_dump(mode="json", exclude_none=True) | weighed

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        versions = [facts[key].data_version for key in self.models]
        # Of two models a fold and a joint merge are the same, and so is their artifact.
        inputs: dict[str, Any] = (
            dict(zip(("previous", "trained"), versions, strict=True))
            if len(versions) == 2
            else {"models": versions}
        )
        if self.technique.needs_base:
            inputs["base"] = facts[self.base_key].data_version
        if self.statistics:
            inputs["statistics"] = [facts[key].data_version for key in self.statistics]
        if self.repairing is not None:
            inputs["calibration"] = facts[self.repairing.chunk_key].data_version
        # Not `self.kind`: what one experiment deploys another may start from.
        kind = DeployedNode.kind
        recipe = Recipe(kind, self.version, self.declared, inputs)
        return {ONLY: recipe if self.repairing is None else of_pixels(recipe)}

    @property
    def needs(self) -> Needs:
        return Needs()

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, int]:
        from fomo_dagster.merging.techniques import merge

        def weights(key: str) -> Path:
            return context.artifact(key).path(WEIGHTS)

        base = weights(self.base_key) if self.technique.needs_base else None
        models = [weights(key) for key in self.model_keys]
        technique = self.effective_technique
        statistics = [context.artifact(key).path(STATISTICS) for key in self.statistics]
        merge(technique, models, folder / WEIGHTS, base, statistics=statistics)
        if self.repairing is None:
            return {}
        pixels = pixels_of(recipe)
        return self.repairing(technique, models, folder / WEIGHTS, pixels, context)

    @property
    def _merge(self) -> str:
        """By what technique it is one of what."""
        keys = self.model_keys
        named = " and ".join(keys) if len(keys) < 3 else f"{keys[0]} to {keys[-1]}"
        return f"{self.declared['technique']} of {named}"

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        technique = self.effective_technique
        coefficients = getattr(technique, "coefficients", None)
        merges = pl.DataFrame({"model": self.model_keys})
        if coefficients is not None:
            merges = merges.with_columns(coefficient=pl.Series([f"{c:.3g}" for c in coefficients]))
        return {
            **self.declared,
            **({"base": self.base_key} if technique.needs_base else {}),
            "merges": merges,
        }


@dataclass(frozen=True, kw_only=True)
class StartNode(DeployedNode):
    """The merged weights that a stage starts from, if no stage deploys them."""

    kind: ClassVar[str] = "start"

    @property
    def description(self) -> str:
        return f"The weights that stage {self.stage} starts from: {self._merge}."
