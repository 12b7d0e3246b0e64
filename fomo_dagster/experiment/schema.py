"""The experiment file as frozen models; defaults are the benchmark's (arXiv 2408.14471).

What changes numbers is identity; `execution`, names, descriptions, owners and the cron schedule are
not, and never change an artifact's address.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from croniter import CroniterError, croniter
from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fomo_dagster.data.declarations import (
    Dataset,
    DatasetName,
    DatasetSettings,
    Declaration,
    PretrainingPool,
    declared_names,
)
from fomo_dagster.streams.entries import canonical_entry

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}")
OWNER = re.compile(r"team:\S.*|[^@\s]+@[^@\s]+\.[^@\s]+")
OPENCLIP_MAX_LOGIT_SCALE = math.log(100)


def _canonical(entry: str, info: ValidationInfo) -> str:
    return canonical_entry(entry, declared_names(info))


StreamEntry = Annotated[str, AfterValidator(_canonical)]
"""`dataset+++concept`, the dataset as in `DatasetName`."""


def check_safe_name(name: str) -> str:
    """Return `name` if it can be a file name and a Dagster asset key; raise `ValueError` if not."""
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a safe name: use letters, digits and underscores (at most 100), "
            "a letter or digit first"
        )
    return name


class Optimiser(Declaration):
    """What turns gradients into steps; its state starts anew at each stage."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.2, ge=0, description="Applied to every trained parameter.")
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    clip_norm: float | None = Field(
        1.0, gt=0, description="Global gradient norm; null: no clipping."
    )


class Schedule(Declaration):
    """Learning rate within a stage; it starts anew at each."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the stage's steps.")
    final_factor: float = Field(0.001, ge=0, le=1, description="Last learning rate over the peak.")


class Budget(Declaration):
    """The length of a stage, in exactly one unit; samples count all pools together."""

    samples: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0, description="Passes over the update pool.")

    @model_validator(mode="after")
    def _is_one_unit(self) -> Budget:
        given = [k for k in ("samples", "steps", "epochs") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of samples, steps, epochs must be given, not {given or 'none'}"
            )
        return self


class TrainingSettings(Declaration):
    """How weights are trained, at a stage or when θ₀ is made."""

    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    batch_size: int = Field(512, ge=2, description="Samples of the contrastive batch, all pools.")
    budget: Budget = Budget(samples=727_040)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_logit_scale: float | None = Field(
        OPENCLIP_MAX_LOGIT_SCALE, description="Clamp on the log temperature; null: none."
    )
    crop_scale: tuple[float, float] = Field(
        (0.9, 1.0), description="Range of the area that the random resized crop keeps."
    )

    @field_validator("crop_scale")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("crop_scale needs 0 < low ≤ high ≤ 1")
        return value


class PretrainingRecipe(TrainingSettings):
    """θ₀ trained here from random weights on a pretraining pool."""

    pool: PretrainingPool
    seed: int = 0


class Backbone(Declaration):
    """θ₀: an OpenCLIP architecture, and exactly one origin of its weights."""

    name: str
    architecture: str | dict[str, Any] = Field(
        description="The name of an OpenCLIP architecture, or a model configuration in its format."
    )
    pretrained: str | None = Field(None, description="An OpenCLIP pretrained tag.")
    weights: Path | None = Field(None, description="A local file in OpenCLIP's format.")
    pretraining: PretrainingRecipe | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> Backbone:
        check_safe_name(self.name)
        given = [
            k for k in ("pretrained", "weights", "pretraining") if getattr(self, k) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "exactly one of pretrained, weights, pretraining must be given, "
                f"not {given or 'none'}"
            )
        return self


class Stream(Declaration):
    """The order in which concepts arrive, and how it is cut into the chunks of the stages."""

    name: str | None = Field(
        None, description="Names the stream's assets; experiments that share a stream share them."
    )
    datasets: tuple[DatasetName, ...] | None = Field(
        None, description="All concepts of these datasets."
    )
    concepts: tuple[StreamEntry, ...] | None = Field(
        None, description="Entries `dataset+++concept`."
    )
    file: Path | None = Field(None, description="A JSON list of such entries.")
    growing: Path | None = Field(
        None,
        description="A folder of which each subfolder (a folder per class) or table, in the order "
        "of names, is a further stage.",
    )
    arriving: DatasetSettings = Field(
        DatasetSettings(), description="How the datasets of a growing stream are declared."
    )
    order: Literal[
        "as_listed", "random", "performance", "frequency", "similarity", "time_incremental",
        "dataset_incremental",
    ] = Field(
        "as_listed",
        description="performance: by θ₀'s accuracy, easy to hard; frequency: by how many captions "
        "of the pretraining pool name the concept; similarity: to the nearest in θ₀'s text "
        "embeddings; time_incremental: datasets by their `year`; dataset_incremental: a stage a "
        "dataset.",
    )  # fmt: skip
    reverse: bool = Field(False, description="The order backwards, concept by concept.")
    interleaved: bool = Field(
        False, description="Of time_incremental: mix the concepts of all datasets of a year."
    )
    starts: int = Field(
        1, ge=1, le=1000,
        description="Of similarity: seeded starts, whose path of most similarity is kept.",
    )  # fmt: skip
    seed: int = Field(0, description="Of what an order leaves open; as_listed leaves nothing.")
    stages: int | None = Field(
        None, ge=0, le=999,
        description="T; may be left out where the order or `positions` says it. 0: nothing is "
        "trained, and θ₀ alone is evaluated.",
    )  # fmt: skip
    cut: Literal["concepts", "samples"] = Field(
        "concepts", description="What the chunks have equally many of; samples: training samples."
    )
    positions: tuple[int, ...] | None = Field(
        None, description="Where chunks 2..T begin, counted in concepts from 1, instead of stages."
    )

    @model_validator(mode="after")
    def _has_one_origin(self) -> Stream:
        if self.name is not None:
            check_safe_name(self.name)
        origins = ("datasets", "concepts", "file", "growing")
        given = [k for k in origins if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(origins)} must be given, not {given}")
        return self

    @model_validator(mode="after")
    def _grows_or_is_ordered(self) -> Stream:
        if self.growing is None:
            if "arriving" in self.model_fields_set:
                raise ValueError("arriving describes the datasets of a growing stream alone")
            return self
        if self.name is None:
            raise ValueError(
                "a growing stream needs a name: it is part of its datasets' names, so that a "
                "renamed experiment computes nothing again"
            )
        arranged = self.model_fields_set & {
            "order", "reverse", "interleaved", "starts", "seed", "stages", "cut", "positions"
        }  # fmt: skip
        given = sorted(
            k for k in arranged if getattr(self, k) != type(self).model_fields[k].default
        )
        if given:
            raise ValueError(
                "a growing stream comes in the order of its entries' names, a stage each: leave "
                f"out {', '.join(given)}"
            )
        return self

    @model_validator(mode="after")
    def _is_cut_one_way(self) -> Stream:
        if self.growing is not None:
            return self
        if self.order == "dataset_incremental":
            if self.positions is not None or self.cut != "concepts":
                raise ValueError(
                    "dataset_incremental has a stage a dataset: leave out cut and positions"
                )
        elif (self.stages is None) == (self.positions is None):
            raise ValueError("exactly one of stages, positions must be given")
        elif self.positions is not None and self.cut != "concepts":
            raise ValueError("cut goes with stages, not with positions")
        if self.positions is not None and not 1 <= len(self.positions) <= 998:
            raise ValueError("positions are where chunks 2..T begin: give 1 to 998 of them")
        return self

    @model_validator(mode="after")
    def _says_what_its_order_uses(self) -> Stream:
        if self.interleaved and self.order != "time_incremental":
            raise ValueError(f"interleaved goes with order: time_incremental, not {self.order}")
        if self.starts > 1 and self.order != "similarity":
            raise ValueError(f"starts goes with order: similarity, not {self.order}")
        return self


class Mixture(Declaration):
    """The shares of every batch (λ_D, λ_B, λ_P); they add up to one."""

    update: float = Field(0.34, ge=0, le=1)
    buffer: float = Field(0.33, ge=0, le=1)
    pretraining: float = Field(0.33, ge=0, le=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Mixture:
        total = self.update + self.buffer + self.pretraining
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, not {total:g}")
        if self.update == 0:
            raise ValueError("update must be above 0: a stage without new samples learns nothing")
        return self


class Buffer(Declaration):
    """What is kept of earlier chunks."""

    capacity: int | None = Field(None, ge=1, description="Samples kept; null: all of them.")
    selection: Literal["class_balanced", "reservoir"] = "class_balanced"


class Merge(Declaration):
    """`deployed_t = (1 - weight) · deployed_{t-1} + weight · trained_t`."""

    technique: Literal["interpolation"] = "interpolation"
    weight: float = Field(0.5, ge=0, le=1, description="Of the newly trained weights.")


class Method(Declaration):
    """What a stage trains, from which weights it starts, and what it deploys."""

    name: Literal["finetune"] = "finetune"
    train: Literal["all", "locked_image", "locked_text"] = "all"
    start_from: Literal["trained", "deployed", "initial"] = Field(
        "trained",
        description="The previous stage's trained or deployed weights, or θ₀ at every stage.",
    )
    merge: Merge | None = Field(None, description="null: the trained weights are deployed.")

    @model_validator(mode="after")
    def _deployed_is_made(self) -> Method:
        if self.start_from == "deployed" and self.merge is None:
            raise ValueError("start_from: deployed needs a merge; without one, use trained")
        return self


class WaffleDescriptors(Declaration):
    """WaffleCLIP's random descriptors (arXiv 2306.07282): one of words, one of characters each."""

    pairs: int = Field(15, ge=1, description="Each is two templates.")
    words: int = Field(2, ge=1, le=20, description="Words, or groups of characters, of each.")
    seed: int = Field(0, ge=0)


class Waffle(Declaration):
    """The dataset's own prompt with random descriptors."""

    waffle: WaffleDescriptors = WaffleDescriptors()


def _have_places(prompts: Prompts) -> Prompts:
    if isinstance(prompts, tuple):
        bad = [p for p in prompts if p.count("{}") != 1]
        if bad or not prompts:
            raise ValueError(f"each template needs exactly one {{}}: {bad or 'none given'}")
    return prompts


def _written_as(prompts: Any) -> str:
    if isinstance(prompts, str):
        return "a name"
    return "descriptors" if isinstance(prompts, dict | Waffle) else "templates"


Prompts = Annotated[
    Annotated[Literal["dataset", "openai", "simple"], Tag("a name")]
    | Annotated[tuple[str, ...], Tag("templates")]
    | Annotated[Waffle, Tag("descriptors")],
    Discriminator(_written_as),
    AfterValidator(_have_places),
]


class Evaluation(Declaration):
    """What every stage is measured on, and how."""

    adaptation: tuple[DatasetName, ...] | None = Field(
        None, description="Datasets of knowledge accumulation; null: those of the stream."
    )
    held_out: tuple[DatasetName, ...] = Field(
        (), description="Datasets of zero-shot retention, never trained on."
    )
    prompts: Prompts = Field(
        "dataset",
        description="The dataset's own prompt, an OpenCLIP template set, a list of templates, or "
        "`waffle:` for the dataset's own prompt with random descriptors.",
    )
    subset: float = Field(1.0, gt=0, le=1, description="Share of a stratified, seeded subset.")
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    retention_warning: float = Field(
        0.1, ge=0, description="Warn when ZS falls by more than this share in one stage."
    )


class Validation(Declaration):
    """Choosing settings without the test splits: every stage is measured on held-out training
    samples of the stream's datasets instead, which it then does not train on."""

    share: float = Field(0.2, gt=0, lt=1, description="Of every concept's training samples.")
    seed: int = 0


class Execution(Declaration):
    """Where and how fast things run; never part of identity."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    workers: int = Field(0, ge=0, description="Processes that load training batches.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Samples on the device at once (GradCache); null: the whole batch."
    )
    evaluation_batch_size: int = Field(256, ge=1)
    shard_cache_gib: float = Field(
        50.0, gt=0, description="Disk for fetched tars of streamed datasets, in the cache folder."
    )
    resume_seconds: float = Field(60.0, gt=0, description="Seconds between resume points.")


class Experiment(TrainingSettings):
    """One experiment: data, order, method, budget, evaluation and seed."""

    name: str
    description: str = ""
    owners: tuple[str, ...] = Field((), description="Addresses, or teams as `team:name`.")
    datasets: dict[str, Dataset] = Field(default_factory=dict)
    backbone: Backbone
    stream: Stream
    training_texts: Prompts | None = Field(
        None,
        description="What the images of the stream's classification datasets are trained with, as "
        "evaluation.prompts says it, one text drawn per sample and epoch; null: their captions.",
    )
    mixture: Mixture = Mixture()
    buffer: Buffer = Buffer()
    pretraining_pool: PretrainingPool | None = Field(
        None, description="P; by default the pool that θ₀ was pretrained on, where declared."
    )
    method: Method = Method()
    evaluation: Evaluation = Evaluation()
    validation: Validation | None = Field(
        None, description="Evaluate on held-out training samples in the place of the test splits."
    )
    seed: int = 0
    cron_schedule: str | None = Field(
        None, description="Reruns the experiment: minute, hour, day, month, weekday."
    )
    execution: Execution = Execution()

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        return check_safe_name(name)

    @field_validator("owners")
    @classmethod
    def _owners_can_be_reached(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r} is neither an e-mail address nor `team:name`")
        return owners

    @field_validator("cron_schedule")
    @classmethod
    def _comes_due(cls, schedule: str | None) -> str | None:
        if schedule is None:
            return None
        try:
            fields, *_ = croniter.expand(schedule)
            if len(fields) != 5:
                raise ValueError(f"{schedule!r} has seconds, and schedules go by the minute")
            croniter(schedule).get_next()
        except CroniterError as error:
            raise ValueError(f"{schedule!r} is no cron schedule ({error})") from error
        return schedule

    @property
    def pool(self) -> PretrainingPool | None:
        """P, or None where the mixture uses none."""
        if self.mixture.pretraining == 0 or self.stream.stages == 0:
            return None
        recipe = self.backbone.pretraining
        return self.pretraining_pool or (recipe.pool if recipe else None)

    @property
    def stream_name(self) -> str:
        name = self.stream.name or self.name
        return name if self.validation is None else f"{name}_validation"

    @model_validator(mode="after")
    def _has_its_pool(self) -> Experiment:
        trains = self.stream.stages != 0
        if trains and self.mixture.pretraining > 0 and self.pool is None:
            raise ValueError(
                f"mixture.pretraining is {self.mixture.pretraining:g} and there is no "
                "pretraining_pool: declare one, or set the share to 0"
            )
        return self
