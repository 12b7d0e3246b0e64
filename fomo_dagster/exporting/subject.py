"""What is exported: a model, what it was measured on, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.evaluation import Evaluation
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.progress import Progress, no_progress

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.evaluate import EvaluationSet
    from fomo_dagster.models.backbones import Model


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A dataset that the model was evaluated on.

    predictions: what the model answered, columns of `tables.view_columns.PREDICTION_COLUMNS`, as
    files of predictions hold them; None if they were not kept. score: in percent. pixels: how its
    images were decoded and resized.
    """

    evaluation_set: EvaluationSet
    role: Literal["adaptation", "held_out"]
    score: float
    predictions: pl.DataFrame | None = None
    pixels: Pixels = Pixels.PILLOW

    @property
    def name(self) -> str:
        """The dataset's."""
        return self.evaluation_set.name


@dataclass(frozen=True, kw_only=True)
class DataUse:
    """A dataset that the weights were trained on.

    use: as the update that stages brought, or as pretraining samples (θ₀'s own or replayed).
    samples: distinct ones; None if nobody counted. licence: as declared; empty if it is not.
    """

    dataset: str
    use: Literal["update", "pretraining"]
    samples: int | None = None
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from.

    experiment, stage: of the deployed weights. updates: how many trainings of stages they come
    from, fewer than `stage` where some were refused; None in records of before that was told.
    backbone: what θ₀ is, in words. method: what a stage
    trains, in words. data: all that was trained on by this stage, as far as this project knows.
    foreign: what else went into the weights, such as a pretraining elsewhere, in words. digests:
    what → digest, of everything that identifies weights and measurements.
    """

    experiment: str
    stage: int
    backbone: str
    method: str
    updates: int | None = None
    description: str = ""
    data: tuple[DataUse, ...] = ()
    foreign: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """`quickstart, stage 5`."""
        return f"{self.experiment}, stage {self.stage}"

    @property
    def file_name(self) -> str:
        """`quickstart-stage-5`, whatever folders the experiment's name has."""
        return f"{self.experiment.replace('/', '-')}-stage-{self.stage}"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is exported. settings: how it was evaluated. execution: where it is measured."""

    model: Model
    provenance: Provenance
    evaluated: tuple[Evaluated, ...]
    settings: Evaluation
    execution: Execution
    progress: Progress = no_progress
