"""The experiment file as frozen models. Defaults are the benchmark's (arXiv 2408.14471).

Whatever changes numbers is identity. `execution`, `retention`, names, descriptions, owners and the
cron schedule are not, and never change an artifact's address.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.dataset import Dataset, PretrainingPool
from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.cron import CronSchedule, TimeZone
from fomo_dagster.experiment.evaluation import Evaluation, Prompts, Validation
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.inspection import Inspection
from fomo_dagster.experiment.mixture import AnyMixture, Mixture
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.near_duplicates import NearDuplicates
from fomo_dagster.experiment.release import Release
from fomo_dagster.experiment.retention import Retention
from fomo_dagster.experiment.stream import Stream
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.methods.registry import AnyMethod
from fomo_dagster.optimisation.annealing import steps_before_anneal

_MANY_STEPS = 10**9  # of a stage whose length its chunk decides: training looks again
# What Dagster takes for an owner; it would load nothing at all with another one.
OWNER = re.compile(r"team:\S.*|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


class Buffer(Declaration):
    """What is kept of earlier chunks."""

    capacity: int | None = Field(
        None, ge=1, description="How many samples to keep; null: all of them."
    )
    capacity_mib: float | None = at_default_left_out(
        None,
        gt=0,
        description="How many MiB of stored images to keep; null: any number. With `capacity`, the "
        "one that is reached first counts.",
    )
    selection: Literal[
        "class_balanced", "reservoir", "herding", "k_centre", "hardest", "most_forgotten"
    ] = Field(
        "class_balanced",
        description="Which samples to keep. class_balanced: about as many of each concept. "
        "reservoir: any, with equal chances. herding, k_centre: about as many of each concept, "
        "those whose mean is nearest to the concept's, or that lie far from one another, by θ₀'s "
        "image features. hardest, most_forgotten: about as many of each concept, those with the "
        "highest loss by the weights that the stage starts from, or whose loss grew most since "
        "their own stage.",
    )

    @property
    def is_by_features(self) -> bool:
        """Whether samples are chosen by θ₀'s image features."""
        return self.selection in ("herding", "k_centre")

    @property
    def is_by_losses(self) -> bool:
        """Whether samples are chosen by the losses of what a stage starts from."""
        return self.selection in ("hardest", "most_forgotten")

    @property
    def is_since(self) -> bool:
        """Whether it is by how much these have grown."""
        return self.selection == "most_forgotten"

    @model_validator(mode="after")
    def _chooses_what_it_keeps(self) -> Buffer:
        chooses = self.is_by_features or self.is_by_losses
        if chooses and self.capacity is None and self.capacity_mib is None:
            raise ValueError(
                f"selection is {self.selection!r}, but without a capacity everything is kept: "
                "give capacity or capacity_mib"
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
    near_duplicates: NearDuplicates | None = at_default_left_out(
        None,
        description="Look for near duplicates in what each stage brings; `{}` takes the defaults. "
        "null: only where release.gates.data asks. Nothing else changes, unless they are left out "
        "(`deduplicate`).",
    )
    inspection: Inspection | None = at_default_left_out(
        None,
        description="Look at what each stage brings with a model's eyes: drift, captions that do "
        "not fit, doubtful labels; `{}` takes the defaults. It only shows.",
    )
    release: Release | None = Field(
        None,
        description="Hold each stage against what is live under a name, and put it live there. It "
        "changes nothing of what is trained or measured.",
    )
    cron_schedule: CronSchedule | None = Field(
        None, description="When to run the experiment again: minute, hour, day, month, weekday."
    )
    cron_timezone: TimeZone | None = Field(
        None, description="Time zone of cron_schedule, such as Europe/Berlin; null: UTC."
    )
    stored_precision: Literal["fp32", "bf16"] = at_default_left_out(
        "fp32",
        description="The numbers in which the weights of trained stages are stored. bf16 takes "
        "half the bytes; evaluations, merges and the next stage then take the rounded weights.",
    )
    retention: Retention = Field(
        Retention(),
        description="Which stages' weights stay in the store after a run. It never changes what is "
        "computed.",
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
    def near_duplicates_asked(self) -> NearDuplicates | None:
        """What counts as near, where near duplicates are looked for."""
        is_gated = self.release is not None and self.release.gates.data is not None
        return self.near_duplicates or (NearDuplicates() if is_gated else None)

    @property
    def deduplicates(self) -> bool:
        """Whether near duplicates are not trained on."""
        return self.near_duplicates is not None and self.near_duplicates.deduplicate

    @property
    def is_evaluated_on_arrivals(self) -> bool:
        """Whether what arrives is evaluated from then on."""
        return self.stream.growing is not None and self.evaluation.adaptation is None

    @property
    def stream_name(self) -> str:
        name = self.stream.name or self.name
        return name if self.validation is None else f"{name}_{self.validation.name}"

    @model_validator(mode="after")
    def _spreads_its_budget(self) -> Experiment:
        if self.budget.mafs is not None and self.stream.growing is not None:
            raise ValueError(
                "budget.mafs is divided among all stages, but a growing stream has no fixed "
                "number of them: give the budget of a stage in samples, steps or epochs "
                "(`fomo budget` prints what a step costs)"
            )
        return self

    @model_validator(mode="after")
    def _has_its_pool(self) -> Experiment:
        if self.stream.stages == 0 or self.pool is not None:
            return self
        for place, share in self.mixture.shares("pretraining"):
            if share > 0:
                raise ValueError(
                    f"{place} is {share:g}, but there is no pretraining_pool: declare one, or "
                    "set the share to 0"
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
                    f"{name} is {size}, but {processes} processes share each batch: use fewer "
                    "processes, or raise it"
                )
        return self

    @model_validator(mode="after")
    def _has_a_name_to_start_from(self) -> Experiment:
        if self.method.start_from == "live" and self.release is None:
            raise ValueError(
                "method.start_from is live, and there is no release: declare under which name "
                "stages go live"
            )
        return self

    @model_validator(mode="after")
    def _has_an_anneal_to_start_before(self) -> Experiment:
        if self.method.start_from == "unannealed":
            steps = self.budget.known_steps(self.batch_size)
            try:
                steps_before_anneal(self.schedule, steps or _MANY_STEPS)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _averages_once(self) -> Experiment:
        if self.optimiser.averages and self.method.average is not None:
            raise ValueError(
                f"method.average is {self.method.average.name}, but optimiser.name is "
                f"{self.optimiser.name}, which already ends with an average of its own: leave out "
                "one of the two"
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
    def _keeps_what_it_can_choose(self) -> Experiment:
        if not self.buffer.is_by_losses:
            return self
        preserve, start = self.method.preserve, self.method.start_from
        said = f"buffer.selection is {self.buffer.selection}, "
        if preserve is not None and preserve.leaves_replay_features:
            raise ValueError(
                f"{said}which looks anew at each stage, and {preserve.name} needs to know what "
                "later stages keep: take another selection"
            )
        if self.buffer.is_since and start in ("live", "initial"):
            raise ValueError(
                f"{said}and method.start_from is {start}: a stage does not go on from the one "
                "before, so nothing tells what was forgotten since; take hardest"
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
