"""What turns gradients into steps: an optimiser's declaration, and how it is made.

AdamW is PyTorch's fused one, the fastest on every device; NAdam and Adafactor are PyTorch's, too,
and the others pytorch_optimizer's. PyTorch is imported when one is made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, at_default_left_out, one_of

if TYPE_CHECKING:
    import torch

Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""How much of a mean of gradients, or of their squares, a step keeps."""


_SMALLEST = (1e-15, 1e-3)  # of Adafactor: the root of ε₁, and ε₂


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

    @abstractmethod
    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over groups of fp32 parameters (`training.parameter_groups`). The learning
        rate is the schedule's to set.

        Raises `InputError` where it does not go with the parameters.
        """


class _Adam(Optimiser):
    learning_rate: float = Field(1e-5, gt=0, description="The schedule's peak.")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)


class AdamW(_Adam):
    """arXiv 1711.05101, with the benchmark's values."""

    name: Literal["adamw"] = "adamw"

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )


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

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from fomo_dagster.optimisation.low_rank import ResumableGaLore, low_rank_groups

        made: torch.optim.Optimizer = ResumableGaLore(
            low_rank_groups(groups, rank=self.rank, update_gap=self.update_gap, scale=self.scale),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )
        return made


class Fira(LowRank):
    """arXiv 2410.01623: what lies outside is scaled as AdamW scales what lies within; α is 1."""

    name: Literal["fira"]

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from fomo_dagster.optimisation.low_rank import ResumableFira, low_rank_groups

        made: torch.optim.Optimizer = ResumableFira(
            low_rank_groups(groups, rank=self.rank, update_gap=self.update_gap, scale=1.0),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )
        return made


class Sgd(Optimiser):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: float = Field(0.9, ge=0, lt=1)

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import SGDW

        rate, decay = self.learning_rate, self.weight_decay
        return SGDW(groups, lr=rate, momentum=self.momentum, weight_decay=decay)


class Lion(Optimiser):
    """arXiv 2302.06675: the sign of a mean of gradients."""

    name: Literal["lion"]
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99), description="Of the mean whose sign is taken, and of the one that is kept."
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import Lion as SignedMomentum

        rate, decay = self.learning_rate, self.weight_decay
        return SignedMomentum(groups, lr=rate, betas=self.betas, weight_decay=decay)


class NAdam(_Adam):
    """Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov Momentum into Adam"), its
    momentum being β₁ · (1 - ½ · 0.96^(0.004 t)) at step t."""

    name: Literal["nadam"]

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.NAdam(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            decoupled_weight_decay=True,
        )


class Adopt(_Adam):
    """arXiv 2411.02853: a gradient is divided by the root of the second moment before it, clipped
    at t^¼, and then gathered. The first one is taken for that moment alone."""

    name: Literal["adopt"]
    betas: tuple[Beta, Beta] = (0.9, 0.9999)
    epsilon: float = Field(1e-6, gt=0)

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import ADOPT

        return ADOPT(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            weight_decouple=True,
            clip_lambda=_clipped_at,
        )


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

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import AdEMAMix as TwoMeans

        return TwoMeans(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            weight_decouple=True,
            alpha=self.alpha,
            t_alpha_beta3=self.slow_warmup_steps,
        )


class Adafactor(Optimiser):
    """arXiv 1804.04235, without momentum: of a matrix' second moment the means of rows and columns.

    The step is relative to the weights: max(0.001, RMS(θ)) · min(learning rate, 1 / √t).
    """

    by_element: ClassVar[bool] = False
    name: Literal["adafactor"]

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        rate, decay = self.learning_rate, self.weight_decay
        return torch.optim.Adafactor(groups, lr=rate, eps=_SMALLEST, weight_decay=decay)


def _clipped_at(step: float) -> float:
    """t^¼ for the t-th update of ADOPT; the library counts the first gradient, which makes none."""
    return float((step - 1) ** 0.25)


OPTIMISERS: tuple[type[Optimiser], ...] = (
    AdamW,
    GaLore,
    Fira,
    Sgd,
    Lion,
    NAdam,
    Adopt,
    AdEMAMix,
    Adafactor,
)

if TYPE_CHECKING:
    AnyOptimiser: TypeAlias = Optimiser
else:
    AnyOptimiser = one_of(OPTIMISERS, "name", "adamw")
