"""The declaration of what may go live: under which name, and what is asked of it before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.names import check_safe_name

RESERVED_ALIASES = ("live", "previous")
ROLES: Mapping[str, tuple[str, ...]] = {
    "knowledge": ("adaptation",),
    "retention": ("held_out",),
    "geometric_mean": ("adaptation", "held_out"),
}
"""Gate → the roles of the datasets that its score is of."""


class ScoreGate(Declaration):
    """What a score of all datasets together must be."""

    at_least: Literal["live"] | float | None = Field(
        None,
        description="live: the score must be better than that of the live release, by the whole "
        "95 % interval of the difference. A number: the whole 95 % interval of the score must lie "
        "above it, in percent.",
    )
    no_worse_than: Literal["live"] | None = Field(
        None,
        description="live: the whole 95 % interval of the difference to the live release must lie "
        "above minus `margin` (non-inferiority).",
    )
    margin: float | None = Field(
        None, gt=0, le=100, description="For no_worse_than: how many points may be lost."
    )

    @model_validator(mode="after")
    def _asks_one_thing(self) -> ScoreGate:
        if (self.at_least is None) == (self.no_worse_than is None):
            raise ValueError("give either at_least, or no_worse_than with a margin")
        if self.no_worse_than is not None and self.margin is None:
            raise ValueError("no_worse_than needs a margin: how many points may be lost")
        if self.at_least is not None and self.margin is not None:
            raise ValueError("margin belongs to no_worse_than: give that, or leave margin out")
        return self


class ProtectedGate(Declaration):
    """What must not be lost, one dataset or concept at a time."""

    datasets: tuple[str, ...] = Field(
        (), description="Datasets, each of whose scores counts by itself."
    )
    concepts: tuple[str, ...] = Field(
        (),
        description="Concepts, in whichever datasets have them; DATASET/CONCEPT is that of one. "
        "Each one's accuracy counts by itself.",
    )
    margin: float = Field(
        1.0, ge=0, le=100, description="Points that each may lose, by the whole 95 % interval."
    )

    @model_validator(mode="after")
    def _protects_something(self) -> ProtectedGate:
        if not self.datasets and not self.concepts:
            raise ValueError("name datasets or concepts to protect")
        return self


class CalibrationGate(Declaration):
    """How far probabilities may be from how often they hold."""

    ece_at_most: float = Field(
        ge=0,
        le=1,
        description="The highest mean of the expected calibration errors of the classification "
        "datasets, as a share: 0.05 is five points.",
    )


class DataGate(Declaration):
    """What the samples that a stage brings may have in common with others."""

    near_duplicates_at_most: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The highest share of them that are near duplicates of what came before, in "
        "earlier stages or in the same: 0.01 is one in a hundred.",
    )
    leakage: Literal["refuse", "allow"] = Field(
        "refuse",
        description="refuse: none of them, and nothing else that the weights learnt from, may be a "
        "near duplicate of a test image that the stage is evaluated on.",
    )

    @model_validator(mode="after")
    def _asks_something(self) -> DataGate:
        if self.near_duplicates_at_most is None and self.leakage == "allow":
            raise ValueError(
                "leakage is allowed and near_duplicates_at_most left out, so nothing is asked: "
                "give one, or leave the gate out"
            )
        return self


class CostGate(Declaration):
    """What a stage may cost to use, against what is live. It is counted, for one image and one
    text, so that the verdict is the same on every machine."""

    flops_ratio_at_most: float | None = Field(
        None,
        gt=0,
        description="How many times the operations of the live release an image may take, and a "
        "text: 1.05 is five percent more.",
    )
    parameters_ratio_at_most: float | None = Field(
        None, gt=0, description="How many times the parameters of the live release it may have."
    )

    @model_validator(mode="after")
    def _asks_something(self) -> CostGate:
        if self.flops_ratio_at_most is None and self.parameters_ratio_at_most is None:
            raise ValueError("give flops_ratio_at_most or parameters_ratio_at_most, or both")
        return self


class SpeedGate(Declaration):
    """How long a stage may take, against what is live. One architecture takes as long, whatever its
    weights; two are timed, once."""

    latency_ratio_at_most: float = Field(
        gt=0,
        description="How many times as long as with the live release the features of one image may "
        "take, and of one text, by the whole 95 % interval: 1.05 is five percent more.",
    )


class GalleryGate(Declaration):
    """What must hold of each gallery of the release name that stays as it is and has `drift`, if
    the stage goes live. Recalls are shares of the ten nearest that a refreshed gallery would give,
    by the whole 95 % interval."""

    cosine_at_least: float | None = Field(
        None, ge=-1, le=1, description="The mean cosine between a row's two embeddings."
    )
    recall_old_queries_at_least: float | None = Field(
        None, ge=0, le=1, description="The recall of queries by what embedded the gallery."
    )
    recall_new_queries_at_least: float | None = Field(
        None, ge=0, le=1, description="The recall of queries by the stage."
    )
    recall_compensated_at_least: float | None = Field(
        None, ge=0, le=1, description="The recall of queries by the stage through a linear map."
    )

    @property
    def least(self) -> dict[str, float]:
        """Metric → the least that is asked, as `gallery_drift` has it: recalls in percent."""
        given = self.model_dump(exclude_none=True)
        found = {name.removesuffix("_at_least"): value for name, value in given.items()}
        return {name: value if name == "cosine" else 100 * value for name, value in found.items()}

    @model_validator(mode="after")
    def _asks_something(self) -> GalleryGate:
        if not self.least:
            raise ValueError(f"nothing is asked: give one of {', '.join(type(self).model_fields)}")
        return self


class Gates(Declaration):
    """What is asked of a stage before it may go live. What is left out is not asked."""

    knowledge: ScoreGate | None = Field(None, description="Knowledge accumulation (KA).")
    retention: ScoreGate | None = Field(None, description="Zero-shot retention (ZS).")
    geometric_mean: ScoreGate | None = Field(None, description="Their geometric mean (GM).")
    protected: ProtectedGate | None = Field(
        None, description="Datasets and concepts that must not be lost."
    )
    calibration: CalibrationGate | None = Field(None, description="Calibration of probabilities.")
    data: DataGate | None = Field(
        None,
        description="The samples that the stage brings; near duplicates are looked for, as "
        "`near_duplicates` says.",
    )
    cost: CostGate | None = Field(None, description="Operations and parameters.")
    speed: SpeedGate | None = Field(None, description="Seconds.")
    galleries: GalleryGate | None = Field(
        None, description="Galleries that follow another alias than live, and have `drift`."
    )

    @property
    def asked(self) -> dict[str, Any]:
        """Gate → what it asks, without those that are left out."""
        return {name: gate for name in type(self).model_fields if (gate := getattr(self, name))}

    @property
    def need_live(self) -> tuple[str, ...]:
        """The gates that only a comparison with what is live can pass."""
        return tuple(
            name
            for name, gate in self.asked.items()
            if isinstance(gate, ProtectedGate | CostGate | SpeedGate)
            or (isinstance(gate, ScoreGate) and "live" in (gate.at_least, gate.no_worse_than))
        )

    def check_evaluated(
        self, experiment: str, roles: Mapping[str, str], tasks: Collection[str], *, arriving: bool
    ) -> None:
        """Raises `InputError` for gates on what an experiment evaluates at no stage. roles: dataset
        → adaptation or held_out; tasks: those of its datasets; arriving: whether adaptation
        datasets of whatever task are still to come."""
        there = {*roles.values(), *(("adaptation",) if arriving else ())}
        for name, of in ROLES.items():
            missing = next((role for role in of if role not in there), None)
            if name in self.asked and missing is not None:
                raise InputError(
                    f"{experiment}: release.gates.{name} is about {missing} datasets, and none is "
                    f"evaluated: name some in evaluation.{missing}, or leave the gate out"
                )
        for dataset in self.protected.datasets if self.protected is not None else ():
            if dataset not in roles and not arriving:
                raise InputError(
                    f"{experiment}: release.gates.protected names the dataset {dataset!r}, which "
                    f"is not evaluated: {nearest(dataset, roles)}"
                )
        if self.calibration is not None and "classification" not in tasks and not arriving:
            raise InputError(
                f"{experiment}: release.gates.calibration is about classification, and no "
                "classification dataset is evaluated: leave the gate out"
            )


class Release(Declaration):
    """Under which name the stages of an experiment may go live, and what is asked of them."""

    name: str = Field(
        description="What is live under this name is one stage at a time, of whichever experiments "
        "give the name."
    )
    gates: Gates = Field(Gates(), description="What is asked of a stage.")
    approval: Literal["automatic", "manual"] = Field(
        "manual",
        description="automatic: a stage that passes all gates goes live at once, but for θ₀. "
        "manual: it waits for `fomo promote`.",
    )
    forms: tuple[str, ...] = Field(
        (),
        description="The forms that what is live is written in: openclip, transformers, onnx, "
        "onnx_fp16, onnx_int8, card. Of several experiments with one name, each gets what any of "
        "them asks for, if its architecture can have it.",
    )

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        return check_safe_name(name)

    @model_validator(mode="after")
    def _has_gates_to_open(self) -> Release:
        if self.approval == "automatic" and not self.gates.asked:
            raise ValueError(
                "approval is automatic and there are no gates, so anything would go live: give "
                "gates, or approval: manual"
            )
        return self
