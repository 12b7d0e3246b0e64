"""What turns gradients into steps, as an experiment declares it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, Tag

from fomo_dagster.data.declarations import Declaration, at_default_left_out, chosen_by


class Optimiser(Declaration):
    """What turns gradients into steps; its state starts anew at each stage.

    Weight decay is decoupled (arXiv 1711.05101) and the gradient is clipped as a whole, with each.
    """

    by_element: ClassVar[bool] = True
    """Whether the step of a weight follows from its own gradients alone, not from its matrix'."""
    name: str
    learning_rate: float = Field(gt=0, description="The schedule's peak.")
    weight_decay: float = Field(0.2, ge=0, description="Of what weight_decay_on says.")
    weight_decay_on: Literal["all", "matrices"] = at_default_left_out(
        "all",
        description="all: every trained parameter, as in the benchmark; matrices: those of two and "
        "more dimensions, so no biases, gains of norms, class embeddings or logit scale.",
    )
    layer_decay: float = at_default_left_out(
        1.0,
        gt=0,
        le=1,
        description="Each layer of a tower has this times the learning rate of the one after it.",
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="Global gradient norm; null: no clipping."
    )


class _Adam(Optimiser):
    learning_rate: float = Field(1e-5, gt=0, description="The schedule's peak.")
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)


class AdamW(_Adam):
    """arXiv 1711.05101, with the benchmark's values."""

    name: Literal["adamw"] = "adamw"


class LowRank(_Adam):
    """AdamW that holds a matrix's moments in `rank` dimensions of its shorter side: those of its
    gradient's largest singular values. All other parameters have AdamW itself."""

    by_element: ClassVar[bool] = False
    rank: int = Field(
        8, ge=1, description="A matrix whose shorter side is not above it has AdamW itself."
    )
    update_gap: int = Field(200, ge=1, description="Steps until dimensions are chosen anew.")


class GaLore(LowRank):
    """arXiv 2403.03507: what lies outside of these dimensions is left out of the step."""

    name: Literal["galore_adamw"]
    scale: float = Field(2.0, gt=0, description="α, times the step of a matrix.")


class Fira(LowRank):
    """arXiv 2410.01623: what lies outside is scaled as AdamW scales what lies within; α is 1."""

    name: Literal["fira"]


class Sgd(Optimiser):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: float = Field(0.9, ge=0, lt=1)


class Lion(Optimiser):
    """arXiv 2302.06675: the sign of a mean of gradients."""

    name: Literal["lion"]
    betas: tuple[float, float] = Field(
        (0.9, 0.99), description="Of the mean whose sign is taken, and of the one that is kept."
    )


AnyOptimiser: TypeAlias = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[GaLore, Tag("galore_adamw")]
    | Annotated[Fira, Tag("fira")]
    | Annotated[Sgd, Tag("sgd")]
    | Annotated[Lion, Tag("lion")],
    chosen_by("name", "adamw"),
]
