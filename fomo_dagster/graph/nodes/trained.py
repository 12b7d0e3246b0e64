"""The nodes of trained weights, one per stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.mixture import StageShares
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.mixture import AnyMixture
from fomo_dagster.experiment.schema import Buffer
from fomo_dagster.experiment.training import Budget, TrainingSettings
from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.budget import BudgetDetails
from fomo_dagster.graph.nodes.features import FeaturesNode
from fomo_dagster.graph.nodes.live_start import StartDetails
from fomo_dagster.graph.nodes.losses import buffer_losses
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.work.checkpoints import (
    ADAPTERS,
    CARRIED,
    REPLAY_FEATURES,
    UNANNEALED,
    UNANNEALED_ADAPTERS,
    WEIGHTS,
    drawn_samples,
    load_weights,
    shown_of_training,
    steps_table,
    training_parameters,
)
from fomo_dagster.graph.work.counted_costs import trained_by
from fomo_dagster.methods.adapters.declaration import Adapters
from fomo_dagster.methods.declaration import Method
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.graph.work.stage_pools import StagePools
    from fomo_dagster.methods.preservation.hooks import StageInputs
    from fomo_dagster.models.backbones import Model


@dataclass(frozen=True)
class OtherWeights:
    """An asset of weights that a training looks at beside its own, and what they are of."""

    key: str
    backbone: Backbone

    def load(self, context: NodeContext) -> Model:
        """The model, on the CPU."""
        return load_weights(self.backbone, context.artifact(self.key).path(WEIGHTS))


@dataclass(frozen=True, kw_only=True)
class TrainedNode(WeightsNode):
    """The weights after training a stage."""

    kind: ClassVar[str] = "trained"
    tools: ClassVar[frozenset[str]] = frozenset({"pytorch", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "start": "it starts from other weights",
        "base": "θ₀ is another",
        "reference": "the weights that it looks back at are others",
        "carried": "the stage before left something else",
        "selecting": "the model that it selects samples by is another",
        "buffer": "earlier chunks brought other samples",
        "chosen_by": "θ₀, whose features the buffer is chosen by, is another",
        "losses": "its buffer is chosen by other losses",
        "pretraining": "the pretraining pool brings other samples",
    }
    makes_weights: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 2: rows of a batch are rounded as in the released code
    stage: int
    backbone: Backbone
    settings: TrainingSettings
    mixture: AnyMixture
    buffer: Buffer
    method: Method
    seed: int
    start_key: str
    base_key: str  # θ₀
    chunk_keys: tuple[str, ...]  # of stages 1..stage; the last is the update pool
    pool_key: str | None  # where the mixture of some stage draws from it
    buffer_features: Mapping[str, str] = field(default_factory=dict)
    """Dataset → the key of θ₀'s features that the buffer is chosen by, if it is."""
    losses_keys: tuple[str, ...] = ()
    """Of the losses that the buffer is chosen by, if it is: stages 2..stage."""
    trained_keys: tuple[str, ...] = ()  # what the stages before trained
    reference: OtherWeights | None = None
    """What the preservation looks at beside the weights of the start."""
    selection: AnyOnlineSelection | None = None
    selecting: OtherWeights | None = None
    """What the selection looks at."""
    budget_key: str | None = None
    """What says how many steps there are, where the budget is one of memory-adjusted FLOPs."""
    execution: Execution
    stored_precision: str = "fp32"

    @property
    def description(self) -> str:
        return f"The weights after training stage {self.stage}."

    @property
    def _continued_key(self) -> str | None:
        """Whose adapters this stage continues with, over θ₀; of stages after the first, alike."""
        persists = isinstance(self.method, Adapters) and self.method.adapters == "persist"
        return self.start_key if persists and self.start_key != self.base_key else None

    @property
    def _starts_unannealed(self) -> bool:
        """Whether it goes on from before the anneal of the stage before."""
        return self.method.start_from == "unannealed" and self.start_key != self.base_key

    @property
    def _carried_key(self) -> str | None:
        """The stage before, where it left what the preservation continues with."""
        preserve, before = self.method.preserve, self.trained_keys
        return before[-1] if preserve and preserve.carries and before else None

    @property
    def _replay_feature_keys(self) -> tuple[str, ...]:
        """The stages before, where they left features of the samples that they brought."""
        preserve = self.method.preserve
        return self.trained_keys if preserve and preserve.leaves_replay_features else ()

    @cached_property
    def _shares(self) -> StageShares:
        """Those declared for this stage, as if it had a buffer."""
        return self.mixture.of_stage(self.stage)

    @property
    def _buffer_keys(self) -> tuple[str, ...]:
        return self.chunk_keys[:-1] if "buffer" in self._shares.pools else ()

    @property
    def _chosen_by(self) -> tuple[str, ...]:
        features = (self.base_key, *self.buffer_features.values()) if self.buffer_features else ()
        return (*features, *self._losses_keys)

    @property
    def _losses_keys(self) -> tuple[str, ...]:
        """Those that decide what is kept: all, or of its own stage."""
        return self.losses_keys if self.buffer.is_since else self.losses_keys[-1:]

    def _learnt(self, keys: Sequence[str], facts: FactsByKey) -> tuple[str, ...]:
        """Of keys of the stages before, those that what this one starts from was trained on: a
        stage that was refused leaves nothing to a later one that starts from what is live."""
        start = facts[self.start_key].details
        if not isinstance(start, StartDetails) or start.learnt is None:
            return tuple(keys)
        return tuple(key for stage, key in enumerate(keys, start=1) if stage in start.learnt)

    @property
    def _drawn_pool_key(self) -> str | None:
        return self.pool_key if "pretraining" in self._shares.pools else None

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                (
                    self.start_key, *self._stage_inputs.values(), *self._replay_feature_keys,
                    *self._buffer_keys, *self._chosen_by, self.chunk_keys[-1],
                    *([self._drawn_pool_key] if self._drawn_pool_key is not None else []),
                    *([self.budget_key] if self.budget_key is not None else []),
                )
            )
        )  # fmt: skip

    @property
    def _stage_inputs(self) -> dict[str, str]:
        """Role → key of the weights and states beside those of the start."""
        base = self.base_key if self._continued_key is not None else None
        roles = {
            "base": base,
            "reference": self.reference.key if self.reference else None,
            "carried": self._carried_key,
            "selecting": self.selecting.key if self.selecting else None,
        }  # fmt: skip
        return {role: key for role, key in roles.items() if key is not None}

    @property
    def declared(self) -> Mapping[str, Any]:
        declared = training_parameters(self.settings) | {
            **trained_by(self.method, goes_on=self._carried_key is not None),
            "mixture": self._shares.as_data(),
            "seed": self.seed,
            "stage": self.stage,
        }
        preserve = self.method.preserve
        if preserve and preserve.of_likelihood and self.settings.loss.name == "siglip":
            declared["likelihood"] = "sigmoid"  # it was a softmax before, whatever the loss
        if preserve and preserve.carried_version > 1 and self._carried_key is not None:
            declared["carried_version"] = preserve.carried_version
        if self.selection is not None:
            declared["selection"] = self.selection.model_dump(mode="json")
        if "buffer" in self._shares.pools:
            declared["buffer"] = self.buffer.model_dump(mode="json")
        if self.method.start_from == "unannealed":
            declared["unannealed"] = True  # it leaves such weights, and after stage 1 has them
        if self.buffer_features:
            declared["features"] = FeaturesNode.version
        if self.stored_precision != "fp32":
            declared["stored_precision"] = self.stored_precision
        return declared

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs: dict[str, Any] = {
            "start": facts[self.start_key].data_version,
            "update": facts[self.chunk_keys[-1]].data_version,
        }
        inputs |= {role: facts[key].data_version for role, key in self._stage_inputs.items()}
        if buffer := self._learnt(self._buffer_keys, facts):
            inputs["buffer"] = [facts[key].data_version for key in buffer]
        if self.buffer_features:  # of what chunks brought, whatever else their datasets hold
            inputs["chosen_by"] = facts[self.base_key].data_version
        if losses := self._losses_keys:
            inputs["losses"] = [facts[key].data_version for key in losses]
        if self._drawn_pool_key is not None:
            inputs["pretraining"] = facts[self._drawn_pool_key].data_version
        if features := self._learnt(self._replay_feature_keys, facts):
            inputs["remembered"] = [facts[key].data_version for key in features]
        parameters = {**self.declared, **self._length(facts)}
        return {ONLY: of_pixels(Recipe(self.kind, self.version, parameters, inputs))}

    def _length(self, facts: FactsByKey) -> dict[str, Any]:
        """The steps that a budget of memory-adjusted FLOPs buys, as if they had been declared."""
        if self.budget_key is None:
            return {}
        steps = facts[self.budget_key].of(BudgetDetails).steps
        return {"budget": Budget(steps=steps).model_dump(mode="json")}

    @property
    def parallelism(self) -> Execution | None:
        return self.execution

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        from fomo_dagster.graph.work.replay_features import read_replay_features
        from fomo_dagster.graph.work.stage import Target, train_on
        from fomo_dagster.graph.work.stage_pools import open_pools
        from fomo_dagster.training.spec import StageSpec

        start = {self.start_key: context.facts(self.start_key)}
        buffer_keys = self._learnt(self._buffer_keys, start)
        opened = open_pools(
            self.chunk_keys[-1], buffer_keys, self._drawn_pool_key, buffer=self.buffer,
            buffer_features=self.buffer_features,
            buffer_losses=lambda: buffer_losses(
                self.losses_keys, since=self.buffer.is_since, context=context
            ),
            seed=self.seed, execution=self.execution, context=context, pixels=pixels_of(recipe),
        )  # fmt: skip
        stage_inputs = self._opened_stage_inputs(context)
        if feature_keys := self._learnt(self._replay_feature_keys, start):
            paths = [context.artifact(key).path(REPLAY_FEATURES) for key in feature_keys]
            stage_inputs = replace(
                stage_inputs,
                replay_features=read_replay_features(paths, opened.earlier, opened.kept),
            )
        continued = self._continued_key
        base = self.start_key if continued is None else self.base_key
        starts, continues = WEIGHTS, ADAPTERS
        if self._starts_unannealed:
            starts = UNANNEALED if continued is None else WEIGHTS
            continues = UNANNEALED_ADAPTERS
        settings = self.settings
        if self.budget_key is not None:
            budget = Budget(**recipe.parameters["budget"])
            settings = settings.model_copy(update={"budget": budget})
        cost = dict(
            train_on(
                load_weights(self.backbone, context.artifact(base).path(starts)),
                opened.pools,
                self._shares if buffer_keys else self._shares.without_buffer(),
                StageSpec(
                    settings=settings,
                    seed=self.seed,
                    stage=self.stage,
                    execution=self.execution,
                    method=self.method,
                    selection=self.selection,
                    stored_precision=self.stored_precision,
                ),
                Target(self.key, recipe, folder),
                context,
                replace(
                    stage_inputs,
                    continued=context.artifact(continued).path(continues) if continued else None,
                    selecting=partial(self.selecting.load, context) if self.selecting else None,
                ),
            )
        )
        of_features = cost.pop("flops_per_replay_feature", 0)
        preserve = self.method.preserve
        if preserve is not None and preserve.leaves_replay_features and context.group.is_main:
            samples = self._leave_replay_features(opened, pixels_of(recipe), folder, context)
            if of_features:
                cost["flops"] += samples * of_features
        return cost

    def _leave_replay_features(
        self, opened: StagePools, pixels: Pixels, folder: Path, context: NodeContext
    ) -> int:
        """Write what the trained weights make of the samples that later buffers may hold; gives
        their number."""
        from fomo_dagster.evaluation.encoding import Encoder
        from fomo_dagster.graph.work.replay_features import write_replay_features

        encoder = Encoder.of(
            load_weights(self.backbone, folder / WEIGHTS),
            self.settings.precision,
            self.execution,
            pixels,
            context.callbacks.progress,
        )
        return write_replay_features(
            encoder, opened.chunk, opened.kept_after, folder / REPLAY_FEATURES, context
        )

    def _opened_stage_inputs(self, context: NodeContext) -> StageInputs:
        from safetensors.torch import load_file

        from fomo_dagster.methods.preservation.hooks import StageInputs

        carried = {}
        if self._carried_key is not None:
            carried = load_file(context.artifact(self._carried_key).path(CARRIED))
        reference = partial(self.reference.load, context) if self.reference else None
        return StageInputs(reference=reference, carried=carried)

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if self._starts_unannealed and self.stage == 2:  # once for all stages
            yield (
                f"each stage of {self.experiment} starts from the weights that the stage before "
                "had ahead of its anneal (method.start_from: unannealed), and deploys annealed ones"
            )

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("training_steps",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        assert self.experiment is not None
        yield steps_table(artifacts[ONLY], experiment=self.experiment, stage=self.stage)

    def samples(self, facts: FactsByKey) -> int | None:
        if self.budget_key is not None:
            return facts[self.budget_key].of(BudgetDetails).steps * self.settings.batch_size
        return drawn_samples(self.settings)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return shown_of_training(outcome.artifacts[ONLY])

    def reason(self, role: str) -> str:
        if role == "update":
            return f"chunk {self.stage} brings other samples"
        return super().reason(role)
