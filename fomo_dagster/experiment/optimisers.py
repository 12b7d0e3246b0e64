"""What turns gradients into steps, as an experiment declares it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, Tag

from fomo_dagster.data.declarations import Declaration, at_default_left_out, chosen_by

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""How much of a mean of gradients, or of their squares, a step keeps."""


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
    betas: tuple[Beta, Beta] = (0.9, 0.999)
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
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99), description="Of the mean whose sign is taken, and of the one that is kept."
    )


class NAdam(_Adam):
    """Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov Momentum into Adam"), its
    momentum being β₁ · (1 - ½ · 0.96^(0.004 t)) at step t."""

    name: Literal["nadam"]


class Adopt(_Adam):
    """arXiv 2411.02853: a gradient is divided by the root of the second moment before it, clipped
    at t^¼, and then gathered. The first one is taken for that moment alone."""

    name: Literal["adopt"]
    betas: tuple[Beta, Beta] = (0.9, 0.9999)
    epsilon: float = Field(1e-6, gt=0)


class AdEMAMix(Optimiser):
    """arXiv 2409.03137: AdamW with a second, slower mean of gradients beside the first."""

    name: Literal["ademamix"]
    betas: tuple[Beta, Beta, Beta] = Field(
        (0.9, 0.999, 0.9999), description="Of the mean, the second moment, and the slow mean."
    )
    epsilon: float = Field(1e-8, gt=0)
    alpha: float = Field(5.0, ge=0, description="Times the slow mean, beside the other.")
    slow_warmup_steps: int | None = Field(
        None, ge=1, description="Until alpha and the slow mean's beta are reached; null: at once."
    )


class Adafactor(Optimiser):
    """arXiv 1804.04235, without momentum: of a matrix' second moment the means of rows and columns.

    The step is relative to the weights: max(0.001, RMS(θ)) · min(learning rate, 1 / √t).
    """

    by_element: ClassVar[bool] = False
    name: Literal["adafactor"]


AnyOptimiser: TypeAlias = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[GaLore, Tag("galore_adamw")]
    | Annotated[Fira, Tag("fira")]
    | Annotated[Sgd, Tag("sgd")]
    | Annotated[Lion, Tag("lion")]
    | Annotated[NAdam, Tag("nadam")]
    | Annotated[Adopt, Tag("adopt")]
    | Annotated[AdEMAMix, Tag("ademamix")]
    | Annotated[Adafactor, Tag("adafactor")],
    chosen_by("name", "adamw"),
]
