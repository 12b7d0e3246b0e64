"""The declarations of adapters: the family, its size, and the layers to adapt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fomo_dagster.methods.declaration import Method, Tower

TARGETS = ("query", "key", "value", "out_proj", "c_fc", "c_proj")


class Adapters(Method):
    """What every family has. Everything except the adapters is frozen, including the logit
    scale."""

    targets: tuple[str, ...] = Field(
        TARGETS,
        min_length=1,
        description="Linear layers to adapt: a last name (query), a whole name, or a glob over "
        "whole names (`visual.*.c_fc`).",
    )
    adapters: Literal["persist", "merge_each_stage"] = Field(
        "persist",
        description="persist: each stage continues with the adapters of the stage before, over "
        "θ₀. merge_each_stage: each stage gets new adapters, over the weights that it "
        "starts from.",
    )

    @property
    def left_towers(self) -> frozenset[Tower]:
        # A last name, and a glob whose first part is one, can be of both.
        parts = [target.partition(".") for target in self.targets]
        if not all(dot and not set(first) & set("*?[") for first, dot, _ in parts):
            return frozenset()
        adapted = {first == "visual" for first, _, _ in parts}
        return frozenset({"text" if adapted == {True} else "image"} if len(adapted) == 1 else ())

    @model_validator(mode="after")
    def _persisting_adapters_have_one_base(self) -> Adapters:
        if self.adapters == "persist" and self.start_from not in ("trained", "unannealed"):
            raise ValueError(
                "adapters: persist keeps adapters over θ₀, so start_from must be trained or "
                f"unannealed, not {self.start_from}: use adapters: merge_each_stage"
            )
        return self

    @model_validator(mode="after")
    def _preserves_what_is_trained(self) -> Adapters:
        if self.preserve is not None and self.preserve.weights_themselves:
            raise ValueError(
                f"{self.preserve.name} anchors the model's weights, but {self.name} trains "
                "adapters beside them: use it with finetune"
            )
        return self


class Scaled(Adapters):
    """Families that add scale · ΔW to a layer. For rsLoRA, set the scale."""

    name: Literal["lora", "dora", "loha", "lokr"]
    rank: int = Field(64, ge=1, description="Rank of ΔW.")
    scale: float = Field(1.0, gt=0, description="Multiplies ΔW; alpha / rank in the papers.")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout on the adapters' inputs; for loha and lokr, on their ranks.",
    )


class Vera(Adapters):
    """VeRA: trained vectors between random matrices that all layers share."""

    name: Literal["vera"]
    rank: int = Field(256, ge=1, description="Rank of the random matrices.")
    initial_d: float = Field(0.1, description="Initial value of the vector d; b starts at 0.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' inputs.")


class Householder(Adapters):
    """HRA: a chain of `rank` Householder reflections before each layer, in pairs."""

    name: Literal["hra"]
    rank: int = Field(
        8,
        ge=2,
        description="Number of reflections. It must be even, because pairs start as the identity.",
    )

    @model_validator(mode="after")
    def _is_even(self) -> Householder:
        if self.rank % 2:
            raise ValueError(f"the rank of hra is {self.rank}, and must be even")
        return self


class Orthogonal(Adapters):
    """OFT: block-diagonal rotations before each layer."""

    name: Literal["oft"]
    block_size: int = Field(
        32, ge=2, description="Size of a block; it must divide the inputs of every target."
    )


class Rescaled(Adapters):
    """(IA)³: one factor for every output of each layer."""

    name: Literal["ia3"]


FAMILIES = (Scaled, Vera, Householder, Orthogonal, Rescaled)
