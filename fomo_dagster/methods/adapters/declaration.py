"""Adapters as an experiment file says them: the family, its size, and the layers that it adapts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fomo_dagster.data.declarations import Declaration

TARGETS = ("query", "key", "value", "out_proj", "c_fc", "c_proj")


class Adapters(Declaration):
    """What every family has. Everything but the adapters is frozen, the logit scale too."""

    name: str
    targets: tuple[str, ...] = Field(
        TARGETS,
        min_length=1,
        description="Linear layers: a last name (query), a whole one, or a glob over whole names "
        "(`visual.*.c_fc`).",
    )
    adapters: Literal["persist", "merge_each_stage"] = Field(
        "persist",
        description="persist: a stage goes on with the adapters of the stage before, over θ₀; "
        "merge_each_stage: each has new ones, over the weights that it starts from.",
    )


class Scaled(Adapters):
    """Families whose change of a layer is scale · ΔW; rsLoRA is a matter of the scale."""

    name: Literal["lora", "dora", "loha", "lokr"]
    rank: int = Field(64, ge=1)
    scale: float = Field(1.0, gt=0, description="Times ΔW: alpha / rank of the papers.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Of the adapters' inputs; for loha and lokr, of their ranks."
    )


class Vera(Adapters):
    """VeRA: vectors trained between random matrices that all layers share."""

    name: Literal["vera"]
    rank: int = Field(256, ge=1)
    initial_d: float = Field(0.1, description="Of the vector d; b begins with 0.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the adapters' inputs.")


class Householder(Adapters):
    """HRA: a chain of `rank` Householder reflections before each layer, in pairs."""

    name: Literal["hra"]
    rank: int = Field(8, ge=2, description="Even: pairs of reflections begin as the identity.")

    @model_validator(mode="after")
    def _is_even(self) -> Householder:
        if self.rank % 2:
            raise ValueError(f"the rank of hra is {self.rank}, and must be even")
        return self


class Orthogonal(Adapters):
    """OFT: block-diagonal rotations before each layer."""

    name: Literal["oft"]
    block_size: int = Field(32, ge=2, description="Must divide the inputs of every target.")


class Rescaled(Adapters):
    """(IA)³: one factor for every output of each layer."""

    name: Literal["ia3"]
