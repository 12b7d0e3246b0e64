"""When weights are merged: what a stage starts from, what it deploys, and names for known pairs.

The two axes are those of TIME (arXiv 2412.06712). The techniques are in `fomo_dagster.merging`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.errors import nearest
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.techniques import AnyTechnique
from fomo_dagster.merging.weighting import Weighting, as_joint

StartFrom = Literal["initial", "trained", "unannealed", "deployed", "fold", "joint", "live"]
Deploy = Literal["trained", "with_previous", "with_initial", "fold", "joint"]
Rule = Literal[
    "initial", "trained", "unannealed", "with_previous", "with_initial", "fold", "joint", "live"
]
"""How the weights that count after a stage come of those before; of either axis."""

UNMERGED: tuple[Rule, ...] = ("initial", "trained", "unannealed", "live")

MERGES_OF_TWO: tuple[Rule, ...] = ("with_previous", "with_initial", "fold")


class Combination(NamedTuple):
    """A known pair of what stages start from and what they deploy."""

    start_from: StartFrom
    deploy: Deploy


# Those of FoMo-in-Flux (arXiv 2408.14471) and of its released code, whose double merges are called
# by the rule of the start, then that of what is deployed: all, unrolled, ft (trained), zs (θ₀).
COMBINATIONS = {
    "ema_merge": Combination("deployed", "with_previous"),
    "zs_merge": Combination("initial", "with_previous"),
    "ft_merge": Combination("trained", "with_previous"),
    "ft_merge_released": Combination("deployed", "with_initial"),
    "offline_merge": Combination("initial", "joint"),
    "double_merge_all_all": Combination("joint", "joint"),
    "double_merge_all_ft": Combination("joint", "trained"),
    "double_merge_all_unrolled": Combination("joint", "fold"),
    "double_merge_ft_all": Combination("trained", "joint"),
    "double_merge_ft_unrolled": Combination("trained", "fold"),
    "double_merge_unrolled_all": Combination("fold", "joint"),
    "double_merge_unrolled_ft": Combination("fold", "trained"),
    "double_merge_zs_unrolled": Combination("initial", "fold"),
}


def _known(name: str) -> str:
    if name not in COMBINATIONS:
        raise ValueError(f"there is no such combination; {nearest(name, COMBINATIONS)}")
    return name


CombinationName = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(COMBINATIONS)})
]


class Joint(Declaration):
    """How all trained weights so far are merged at once."""

    weighting: Weighting = Field(
        "uniform",
        description="How the weight of the i-th model grows with i, oldest first: equal, i, √i, "
        "i², i³, i⁵, i¹⁰, 2^i, ln(i + 1).",
    )
    reversed: bool = Field(False, description="Let older models count more.")
    include_initial: bool = Field(
        False,
        description="Add θ₀ as the oldest model; not with techniques that have θ₀ as their base.",
    )

    @model_validator(mode="after")
    def _has_a_direction(self) -> Joint:
        if self.reversed and self.weighting == "uniform":
            raise ValueError(
                "uniform weights are the same when reversed: give another weighting, or "
                "leave out reversed"
            )
        return self


class MergingOverTime(Declaration):
    """Which weights a stage starts from, what it deploys, and how they are merged."""

    combination: CombinationName | None = Field(
        None, description="A known pair of start_from and deploy, which you then leave out."
    )
    start_from: StartFrom = Field(
        "trained",
        description="The weights that a stage starts from: θ₀ (initial); the trained or deployed "
        "weights of the stage before; its weights before the schedule's anneal or cool-down "
        "(unannealed); a left fold or joint merge of all trained weights; or what is live under "
        "release.name when the stage is first trained (live), so that what follows does not start "
        "from a stage that was refused.",
    )
    deploy: Deploy = Field(
        "trained",
        description="The weights that a stage deploys: the trained ones; their merge with those "
        "deployed before (with_previous, the default if there is a merge; at stage 1 with θ₀, and "
        "with what is live where stages start from that) or with θ₀ (with_initial); or a left fold "
        "or joint merge of all trained weights.",
    )
    merge: AnyTechnique | None = Field(
        None,
        description="The technique, for the models oldest first. null: nothing is merged, or "
        "interpolation if a combination is given.",
    )
    joint: Joint = Field(Joint(), description="How a joint merge weighs the models.")

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: Any) -> Any:
        """The axes that the combination gives, and the defaults that hang on other fields."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        name = data.get("combination")
        combination = COMBINATIONS.get(name) if isinstance(name, str) else None
        if combination is not None:
            for axis, rule in combination._asdict().items():
                if data.setdefault(axis, rule) != rule:
                    raise ValueError(
                        f"{axis} is {data[axis]!r}, but combination {name!r} sets it to {rule!r}: "
                        "leave out one of the two"
                    )
            if data.get("merge") is None:
                data["merge"] = {"technique": "interpolation"}
        elif data.get("merge") is not None:
            data.setdefault("deploy", "with_previous")
        return data

    @property
    def start_rule(self) -> Rule:
        """The rule that, applied to the stage before, gives what a stage starts from."""
        if self.start_from == "deployed":
            return self.deploy
        return self.start_from

    @model_validator(mode="after")
    def _merges_what_it_says(self) -> MergingOverTime:
        used = {self.start_rule, self.deploy}.difference(UNMERGED)
        if self.start_from == "deployed" and self.deploy == "trained":
            raise ValueError(
                "start_from: deployed needs a merge; without one, use trained, which is the same"
            )
        if self.start_from == "live" and self.deploy in ("fold", "joint"):
            raise ValueError(
                f"deploy: {self.deploy} merges all stages, those that were refused among them, and "
                "start_from: live is to leave them out: deploy with_previous merges with what is "
                "live, with_initial with θ₀"
            )
        if self.merge is None and used:
            axis = "deploy" if self.deploy in used else "start_from"
            raise ValueError(
                f"{axis}: {getattr(self, axis)} needs a merge, for example "
                "merge: {technique: interpolation}"
            )
        if self.merge is not None and not used:
            raise ValueError(
                f"merge is given, but nothing is merged with start_from: {self.start_from} "
                f"and deploy: {self.deploy}: leave it out, or change one of them"
            )
        if "joint" not in used and self.joint != Joint():
            raise ValueError(
                "joint is given, but nothing is merged jointly: set start_from: joint or "
                "deploy: joint, or leave it out"
            )
        if self.merge is not None:
            self._check_counts(self.merge, used)
        return self

    def _check_counts(self, merge: Technique, used: set[Rule]) -> None:
        other = used - {"joint", *UNMERGED} or self.joint.include_initial
        if merge.statistics and other:
            raise ValueError(
                f"{merge.technique} needs statistics of what each model was trained on, which θ₀ "
                "and merged weights do not have: merge trained weights alone, with deploy: joint "
                "(combination: offline_merge starts each stage from θ₀) and without "
                "joint.include_initial"
            )
        reason = merge.why_unsupported(2) if not used.isdisjoint(MERGES_OF_TWO) else None
        if reason is not None:
            raise ValueError(f"{merge.technique} cannot merge two models: {reason}")
        if "joint" not in used:
            return
        as_joint(merge, 3, self.joint.weighting, reversed=self.joint.reversed)
        if self.joint.include_initial and merge.needs_base:
            raise ValueError(
                f"{merge.technique} already starts from θ₀, which cannot also be one of the "
                "models: leave out joint.include_initial"
            )
