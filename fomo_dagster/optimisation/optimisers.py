"""The optimisers: each one's declaration, and how it is created.

AdamW is PyTorch's fused one, the fastest on every device. NAdam, Adafactor and Muon are PyTorch's
too, schedule-free AdamW is ours, and the others are pytorch_optimizer's. PyTorch is imported when
an optimiser is created.
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
    """An optimiser; its state starts anew at each stage.

    Every optimiser decouples weight decay (arXiv 1711.05101) and clips the gradient as a whole.
    """

    by_element: ClassVar[bool] = True
    """Whether the step of a weight follows from its own gradients alone, not from its matrix's."""
    tells_hidden: ClassVar[bool] = False
    """Whether the groups say which are of `hidden` matrices: those within the towers' blocks."""
    averages: ClassVar[bool] = False
    """Whether it ends with an average of the steps, which takes the place of a schedule's fall."""
    name: str
    learning_rate: float = Field(gt=0, description="The peak of the schedule.")
    weight_decay: float = Field(
        0.2, ge=0, description="Weight decay of the parameters that `weight_decay_on` selects."
    )
    weight_decay_on: Literal["all", "matrices"] = at_default_left_out(
        "all",
        description="Which parameters decay. all: every trained parameter, as in the benchmark. "
        "matrices: those with two or more dimensions, so no biases, gains of norms, "
        "class embeddings or logit scale.",
    )
    layer_decay: float = at_default_left_out(
        1.0,
        gt=0,
        le=1,
        description="Each layer of a tower has this times the learning rate of the layer after it.",
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="Largest norm of the whole gradient; null: do not clip."
    )

    @abstractmethod
    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over groups of fp32 parameters (`training.parameter_groups`). The schedule
        sets the learning rate.

        Raises `InputError` if it does not suit the parameters.
        """


class _Adam(Optimiser):
    learning_rate: float = Field(1e-5, gt=0, description="The peak of the schedule.")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="Decay of the first and the second moment."
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the denominator.")


class AdamW(_Adam):
    """AdamW with the benchmark's values (arXiv 1711.05101)."""

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
    """AdamW that keeps a matrix's moments in `rank` dimensions of its shorter side: those of its
    gradient's largest singular values. All other parameters get AdamW itself."""

    by_element: ClassVar[bool] = False
    rank: int = Field(
        8,
        ge=1,
        description="Dimensions to keep. A matrix whose shorter side is not longer than this gets "
        "AdamW itself.",
    )
    update_gap: int = Field(200, ge=1, description="Choose new dimensions after this many steps.")


class GaLore(LowRank):
    """AdamW in a few dimensions of each matrix; the gradient outside them is dropped
    (arXiv 2403.03507)."""

    name: Literal["galore_adamw"]
    scale: float = Field(2.0, gt=0, description="α: multiplies the step of a matrix.")

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
    """AdamW in a few dimensions of each matrix; the gradient outside them is kept, scaled as AdamW
    scales the part within (arXiv 2410.01623). α is 1."""

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
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Share of the earlier updates that a step keeps."
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import SGDW

        rate, decay = self.learning_rate, self.weight_decay
        return SGDW(groups, lr=rate, momentum=self.momentum, weight_decay=decay)


class Lion(Optimiser):
    """Steps by the sign of a mean of gradients (arXiv 2302.06675)."""

    name: Literal["lion"]
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99),
        description="Decay for the mean whose sign is taken, and for the mean that is kept.",
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import Lion as SignedMomentum

        rate, decay = self.learning_rate, self.weight_decay
        return SignedMomentum(groups, lr=rate, betas=self.betas, weight_decay=decay)


class NAdam(_Adam):
    """Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov Momentum into Adam"). The
    momentum at step t is β₁ · (1 - ½ · 0.96^(0.004 t))."""

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
    """Divides a gradient by the root of the second moment before it, clips the result at t^¼,
    and adds it to the first moment (arXiv 2411.02853). The first gradient only sets the second
    moment."""

    name: Literal["adopt"]
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.9999), description="Decay of the first and the second moment."
    )
    epsilon: float = Field(1e-6, gt=0, description="Smallest denominator.")

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
    """AdamW with a second, slower mean of gradients (arXiv 2409.03137)."""

    name: Literal["ademamix"]
    betas: tuple[Beta, Beta, Beta] = Field(
        (0.9, 0.999, 0.9999),
        description="Decay of the mean, of the second moment, and of the slow mean.",
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the denominator.")
    alpha: float = Field(5.0, ge=0, description="Weight of the slow mean.")
    slow_warmup_steps: int | None = Field(
        None,
        ge=1,
        description="Steps until alpha and the slow mean's beta reach their values; null: they "
        "have them at once.",
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
    """Without momentum; of a matrix's second moment it keeps the means of rows and columns
    (arXiv 1804.04235).

    Steps are relative to the weights: max(0.001, RMS(θ)) · min(learning rate, 1 / √t).
    """

    by_element: ClassVar[bool] = False
    name: Literal["adafactor"]

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        rate, decay = self.learning_rate, self.weight_decay
        return torch.optim.Adafactor(groups, lr=rate, eps=_SMALLEST, weight_decay=decay)


class Muon(_Adam):
    """Steps by the matrix of a mean of gradients with all singular values near 1, for the matrices
    within the towers' blocks (Jordan 2024, "Muon: An optimizer for hidden layers in neural
    networks"). Everything else gets AdamW.

    With momentum μ, B ← μ B + (1-μ) G; G μ-mixed with B once more (Nesterov), divided by its norm,
    goes five times through X ← a X + (b A + c A²) X, A = X Xᵀ, where (a, b, c) = (3.4445, -4.775,
    2.0315), in bf16. The step is that times the rate and `match` of the matrix' sides.
    """

    by_element: ClassVar[bool] = False
    tells_hidden: ClassVar[bool] = True
    name: Literal["muon"]
    momentum: float = Field(
        0.95, ge=0, lt=1, description="Share of the mean of gradients that a step keeps."
    )
    match: Literal["match_rms_adamw", "original", "spectral_unclamped"] = Field(
        "match_rms_adamw",
        description="Times what the step of a matrix of A rows and B columns takes the learning "
        "rate. match_rms_adamw: 0.2 √max(A, B), which is as large as AdamW's (arXiv 2502.16982). "
        "original: √max(1, A/B). spectral_unclamped: √(A/B).",
    )
    hidden_factor: float = Field(
        1.0,
        gt=0,
        description="Times what the hidden matrices take the learning rate, beside `match`.",
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from fomo_dagster.optimisation.muon import MuonAndAdamW

        rate, decay = self.learning_rate, self.weight_decay
        return MuonAndAdamW(
            groups,
            self.hidden_factor,
            {
                "lr": rate,
                "weight_decay": decay,
                "momentum": self.momentum,
                "adjust_lr_fn": self.match,
            },
            {
                "lr": rate,
                "weight_decay": decay,
                "betas": self.betas,
                "eps": self.epsilon,
                "fused": True,
            },
        )


class ScheduleFreeAdamW(_Adam):
    """AdamW that ends with a weighted mean x of its steps z, and takes gradients between the two,
    at y = (1-β₁) z + β₁ x (arXiv 2405.15682). It goes with `schedule: {name: constant}`."""

    averages: ClassVar[bool] = True
    name: Literal["schedule_free_adamw"]
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], Beta] = Field(
        (0.9, 0.999),
        description="Share of the mean in the weights that gradients are taken at, and decay of "
        "the second moment.",
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from fomo_dagster.optimisation.schedule_free import ScheduleFreeSteps

        return ScheduleFreeSteps(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )


class Soap(_Adam):
    """Adam in the eigenvectors of Shampoo's means of G Gᵀ and Gᵀ G (arXiv 2409.11321). The first
    gradient only sets these."""

    by_element: ClassVar[bool] = False
    name: Literal["soap"]
    betas: tuple[Beta, Beta] = Field(
        (0.95, 0.95),
        description="Decay of the first moment, and of the second and the means of G Gᵀ, Gᵀ G.",
    )
    update_gap: int = Field(
        10, ge=1, description="Renew the eigenvectors after this many steps, by one QR iteration."
    )
    largest_side: int = Field(
        10_000, ge=1, description="A side of a tensor that is longer has no eigenvectors."
    )

    def create(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        from pytorch_optimizer import SOAP

        return SOAP(
            groups,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            precondition_frequency=self.update_gap,
            max_precondition_dim=self.largest_side,
        )


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
    Muon,
    ScheduleFreeAdamW,
    Soap,
)

if TYPE_CHECKING:
    AnyOptimiser: TypeAlias = Optimiser
else:
    AnyOptimiser = one_of(OPTIMISERS, "name", "adamw")
