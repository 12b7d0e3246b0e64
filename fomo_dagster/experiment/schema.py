"""The experiment file as frozen models. Defaults are the benchmark's (arXiv 2408.14471).

Whatever changes numbers is identity. `execution`, names, descriptions, owners and the cron schedule
are not, and never change an artifact's address.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator, model_validator

from fomo_dagster.data.dataset import Dataset, PretrainingPool
from fomo_dagster.data.declarations import Declaration, chosen_by
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.cron import CronSchedule, TimeZone
from fomo_dagster.experiment.evaluation import Evaluation, Prompts, Validation
from fomo_dagster.experiment.machines import Machines
from fomo_dagster.experiment.merging_over_time import MergingOverTime
from fomo_dagster.experiment.mixture import AnyMixture, Mixture
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.stream import Stream
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.adapters.declaration import (
    Adapters,
    Householder,
    Orthogonal,
    Rescaled,
    Scaled,
    Vera,
)
from fomo_dagster.methods.averaging.declaration import AnyAverage
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.methods.preservation.registry import AnyPreservation
from fomo_dagster.methods.trained_parameters.declaration import Train

# What Dagster takes for an owner; it would load nothing at all with another one.
OWNER = re.compile(r"team:\S.*|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


class Buffer(Declaration):
    """What is kept of earlier chunks."""

    capacity: int | None = Field(
        None, ge=1, description="How many samples to keep; null: all of them."
    )
    selection: Literal["class_balanced", "reservoir"] = Field(
        "class_balanced",
        description="Which samples to keep. class_balanced: about as many of each concept. "
        "reservoir: any, with equal chances.",
    )


class Method(MergingOverTime):
    """What all methods have; each adds what it trains."""

    preserve: AnyPreservation | None = Field(
        None, description="What keeps earlier abilities in addition to replay; null: nothing."
    )
    average: AnyAverage | None = Field(
        None,
        description="Average the weights over the steps of a stage and end the stage with the "
        "average; null: end it with the weights of its last step.",
    )

    @model_validator(mode="after")
    def _goes_on_with_what_is_carried(self) -> Method:
        if self.preserve is not None and self.preserve.carries and self.start_from == "initial":
            raise ValueError(
                f"{self.preserve.name} goes on from stage to stage, and start_from: initial begins "
                "each at θ₀: use trained or deployed"
            )
        return self


class Finetune(Method):
    """Trains the model's weights, all or some."""

    name: Literal["finetune"] = "finetune"
    train: Train = Field(
        "all",
        description="Which parameters to train: all; one tower (locked_image, locked_text); "
        "layer_norms (LNFit); biases (BitFit); projections (linear probing); or globs "
        "over parameter names.",
    )


class _Adapting(Method, Adapters):
    """Trains adapters on frozen weights."""

    @model_validator(mode="after")
    def _persisting_adapters_have_one_base(self) -> _Adapting:
        if self.adapters == "persist" and self.start_from != "trained":
            raise ValueError(
                "adapters that persist stay over θ₀, so that start_from must be trained, not "
                f"{self.start_from}: use adapters: merge_each_stage"
            )
        return self

    @model_validator(mode="after")
    def _preserves_what_is_trained(self) -> _Adapting:
        if self.preserve is not None and self.preserve.weights_themselves:
            raise ValueError(
                f"{self.preserve.name} holds the model's weights where they are, and {self.name} "
                "trains adapters beside them: use it with finetune"
            )
        return self


class ScaledMethod(Scaled, _Adapting):
    """Trains LoRA, DoRA, LoHa or LoKr adapters, which add scale · ΔW to a layer."""


class VeraMethod(Vera, _Adapting):
    """Trains VeRA adapters: vectors between random matrices that all layers share."""


class HouseholderMethod(Householder, _Adapting):
    """Trains HRA adapters: a chain of Householder reflections before each layer."""


class OrthogonalMethod(Orthogonal, _Adapting):
    """Trains OFT adapters: block-diagonal rotations before each layer."""


class RescaledMethod(Rescaled, _Adapting):
    """Trains (IA)³ adapters: one factor for every output of each layer."""


AnyMethod = Annotated[
    Annotated[Finetune, Tag("finetune")]
    | Annotated[ScaledMethod, Tag("lora")]
    | Annotated[ScaledMethod, Tag("dora")]
    | Annotated[ScaledMethod, Tag("loha")]
    | Annotated[ScaledMethod, Tag("lokr")]
    | Annotated[VeraMethod, Tag("vera")]
    | Annotated[HouseholderMethod, Tag("hra")]
    | Annotated[OrthogonalMethod, Tag("oft")]
    | Annotated[RescaledMethod, Tag("ia3")],
    chosen_by("name", "finetune"),
]


class Execution(Declaration):
    """Where and how fast things run. It is never part of identity."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    processes: int = Field(
        1,
        ge=1,
        description="Processes on each machine that train a stage together and divide the "
        "datasets of an evaluation. Each has its own CUDA device.",
    )
    machines: Machines | None = Field(None, description="Several machines; null: only this one.")
    sharded: bool = Field(
        False,
        description="Divide weights, gradients and the optimiser's state among the processes of a "
        "training (FSDP2), for models that are too large for one device.",
    )
    workers: int = Field(0, ge=0, description="Processes that load training batches.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Samples on the device at once (GradCache); null: the whole batch."
    )
    gradient_checkpointing: bool = Field(
        False, description="Save memory by computing activations twice."
    )
    compile: bool = Field(
        False, description="Compile the towers with torch.compile. Only rounding differs."
    )
    evaluation_batch_size: int = Field(
        256, ge=1, description="Samples on the device at once in evaluation."
    )
    shard_cache_gib: float = Field(
        50.0,
        gt=0,
        description="Disk space for fetched tars of streamed datasets, in the cache folder.",
    )
    resume_seconds: float = Field(60.0, gt=0, description="Seconds between resume points.")

    @property
    def all_processes(self) -> int:
        """The number of processes on all machines."""
        return self.processes * (self.machines.count if self.machines is not None else 1)

    @model_validator(mode="after")
    def _can_share_weights_out(self) -> Execution:
        if self.sharded and self.all_processes == 1:
            raise ValueError(
                "sharded shares weights out over the processes of a training, and processes is 1: "
                "raise it, or leave sharded out"
            )
        if self.sharded and self.compile:
            raise ValueError(
                "sharded and compile do not go together: a compiled tower needs its weights whole; "
                "leave one out"
            )
        return self

    @model_validator(mode="after")
    def _processes_have_devices(self) -> Execution:
        if self.all_processes > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"device is {self.device!r}, and there are {self.all_processes} processes, each "
                "with a device of its own: use auto, cuda or cpu"
            )
        return self


class Experiment(TrainingSettings):
    """One experiment: data, order, method, budget, evaluation and seed."""

    name: str = Field(description="The experiment's name; by default the file's, with its folder.")
    description: str = Field("", description="Shown in Dagster.")
    owners: tuple[str, ...] = Field((), description="E-mail addresses, or teams as `team:name`.")
    datasets: dict[str, Dataset] = Field(
        default_factory=dict, description="Datasets that only this experiment declares, by name."
    )
    backbone: Backbone = Field(description="θ₀, the model that is updated.")
    stream: Stream = Field(
        description="Which concepts arrive, in which order, and in how many stages."
    )
    training_texts: Prompts | None = Field(
        None,
        description="Texts to train the images of the stream's classification datasets with, in "
        "the forms of evaluation.prompts. One is drawn per sample and epoch. null: "
        "their captions.",
    )
    mixture: AnyMixture = Field(
        Mixture(), description="Shares of each batch for the pools update, buffer and pretraining."
    )
    buffer: Buffer = Field(
        Buffer(), description="How many samples of earlier chunks to keep, and which."
    )
    selection: AnyOnlineSelection | None = Field(
        None,
        description="Draw larger batches and train on the samples that this selects; null: train "
        "on all samples drawn.",
    )
    pretraining_pool: PretrainingPool | None = Field(
        None,
        description="Samples like those that θ₀ was trained on; by default the pool of the "
        "backbone's pretraining recipe, if it has one.",
    )
    method: AnyMethod = Field(
        Finetune(),
        description="What a stage trains and preserves, where it starts, and what it deploys.",
    )
    evaluation: Evaluation = Field(Evaluation(), description="What every stage is measured on.")
    validation: Validation | None = Field(
        None, description="Evaluate on held-out training samples instead of the test splits."
    )
    seed: int = Field(0, description="Seed of everything random that has no seed of its own.")
    cron_schedule: CronSchedule | None = Field(
        None, description="When to run the experiment again: minute, hour, day, month, weekday."
    )
    cron_timezone: TimeZone | None = Field(
        None, description="Time zone of cron_schedule, such as Europe/Berlin; null: UTC."
    )
    execution: Execution = Field(
        Execution(), description="Where and how fast things run. It never changes what is computed."
    )

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        return check_safe_name(name)

    @field_validator("owners")
    @classmethod
    def _owners_can_be_reached(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not OWNER.fullmatch(owner):
                raise ValueError(
                    f"{owner!r} is neither `team:name` nor an e-mail address that Dagster takes "
                    "(ASCII, and at most 7 letters after the last dot)"
                )
        return owners

    @model_validator(mode="after")
    def _has_a_time_for_its_zone(self) -> Experiment:
        if self.cron_timezone is not None and self.cron_schedule is None:
            raise ValueError("cron_timezone is given without cron_schedule: give both, or neither")
        return self

    @property
    def pool(self) -> PretrainingPool | None:
        """The pretraining pool; None if the mixture does not use one."""
        used = any(share for _, share in self.mixture.shares("pretraining"))
        if not used or self.stream.stages == 0:
            return None
        recipe = self.backbone.pretraining
        return self.pretraining_pool or (recipe.pool if recipe else None)

    @property
    def stream_name(self) -> str:
        name = self.stream.name or self.name
        return name if self.validation is None else f"{name}_{self.validation.name}"

    @model_validator(mode="after")
    def _spreads_its_budget(self) -> Experiment:
        if self.budget.mafs is not None and self.stream.growing is not None:
            raise ValueError(
                "budget.mafs is spread over all stages, and a growing stream has no number of "
                "them: give the budget of a stage in samples, steps or epochs (`fomo budget` "
                "prints what a step costs)"
            )
        return self

    @model_validator(mode="after")
    def _has_its_pool(self) -> Experiment:
        if self.stream.stages == 0 or self.pool is not None:
            return self
        for place, share in self.mixture.shares("pretraining"):
            if share > 0:
                raise ValueError(
                    f"{place} is {share:g} and there is no pretraining_pool: declare one, or set "
                    "the share to 0"
                )
        return self

    @model_validator(mode="after")
    def _shares_come_to_samples(self) -> Experiment:
        without_buffer = isinstance(self.mixture, Mixture) and self.stream.stages == 1
        if self.stream.stages != 0 and not without_buffer:
            try:
                self.mixture.check(self.batch_size, self.budget.known_steps(self.batch_size))
            except InputError as error:
                raise ValueError(f"mixture: {error}") from error
        return self

    @model_validator(mode="after")
    def _models_go_with_the_loss(self) -> Experiment:
        self.backbone.check_goes_with(self.loss)
        preserve = self.method.preserve
        if preserve is not None and isinstance(preserve.reference, Backbone):
            preserve.reference.check_goes_with(self.loss)
        return self

    @model_validator(mode="after")
    def _processes_have_rows(self) -> Experiment:
        processes = self.execution.all_processes
        batches = {"batch_size": self.batch_size}
        if self.backbone.pretraining is not None:
            batches["backbone.pretraining.batch_size"] = self.backbone.pretraining.batch_size
        if self.method.preserve is not None:
            own = self.method.preserve.batches
            batches |= {f"method.preserve.{name}": size for name, size in own.items()}
        for name, size in batches.items():
            if size < processes:
                raise ValueError(
                    f"{name} is {size}, and {processes} processes share each batch: use fewer "
                    "processes, or raise it"
                )
        return self

    @model_validator(mode="after")
    def _can_share_weights_out(self) -> Experiment:
        if not self.execution.sharded:
            return self
        optimisers = {"optimiser.name": self.optimiser}
        if self.backbone.pretraining is not None:
            optimisers["backbone.pretraining.optimiser.name"] = self.backbone.pretraining.optimiser
        wrong = [
            f"{place} is {optimiser.name}, which needs whole matrices, and each process holds rows "
            "of them"
            for place, optimiser in optimisers.items()
            if not optimiser.by_element
        ]
        preserve = self.method.preserve
        if preserve is not None and preserve.of_each_pair:
            wrong.append(
                f"method.preserve.name is {preserve.name}, which needs the gradients of single "
                "pairs, and those of all processes are added up"
            )
        if wrong:
            raise ValueError(
                f"execution.sharded: {wrong[0]}: take another, or leave execution.sharded out"
            )
        return self

    @model_validator(mode="after")
    def _preserves_what_the_mixture_has(self) -> Experiment:
        preserve = self.method.preserve
        if preserve is None:
            return self
        for pool in preserve.pools:
            for place, share in self.mixture.shares(pool):
                if share == 0:
                    raise ValueError(
                        f"{preserve.name} needs samples of the {pool} pool in each batch, and "
                        f"{place} is 0: give it a share"
                    )
        return self
