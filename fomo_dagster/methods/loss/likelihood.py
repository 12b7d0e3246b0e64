"""How a loss reads logits: each row as one answer among many, or each pair separately.

CLIP's loss is the likelihood of a softmax over a row, SigLIP's of a sigmoid of each pair. Methods
that measure or keep a model's probabilities use those of the loss that is trained with. In logits
here, rows are images and columns texts, or the other way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Likelihood(ABC):
    """Probabilities of logits."""

    predictions: ClassVar[int]
    """That a model makes of each pair of a batch."""

    @abstractmethod
    def logits(self, similarities: Tensor, bias: Tensor | None) -> Tensor:
        """exp(logit_scale) times cosines (N, M), and the bias of the logits: (N, M)."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability that the row's and the column's item belong together: (N, M)."""

    @abstractmethod
    def divergences(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """`T² · KL(p(teacher / T) ‖ p(student / T))` of each row of logits (N, M): (N,)."""

    @abstractmethod
    def negative_log_likelihood(self, logits: Tensor, random: torch.Generator) -> Tensor:
        """-Σ log p(y) of all predictions over a batch's logits (B, B), the answers y drawn from
        the model itself: a scalar. random: on the CPU."""


class Softmax(Likelihood):
    """CLIP's (arXiv 2103.00020), with or without smoothed labels: for each image, which of the
    texts is its own, and for each text, which image. A bias is the same for all answers, and
    cancels out."""

    predictions = 2

    def logits(self, similarities: Tensor, bias: Tensor | None) -> Tensor:
        return similarities

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)

    def divergences(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        softened = nn.functional.kl_div(
            nn.functional.log_softmax(student / temperature, dim=1),
            nn.functional.log_softmax(teacher / temperature, dim=1),
            reduction="none",
            log_target=True,
        )  # (N, M)
        return temperature**2 * softened.sum(dim=1)

    def negative_log_likelihood(self, logits: Tensor, random: torch.Generator) -> Tensor:
        predictions = torch.cat([logits, logits.T])  # (2B, B)
        shares = predictions.detach().softmax(dim=1).cpu()
        answers = torch.multinomial(shares, 1, generator=random).squeeze(1).to(logits.device)
        return nn.functional.cross_entropy(predictions, answers, reduction="sum")


class Sigmoid(Likelihood):
    """SigLIP's (arXiv 2303.15343): for each pair separately, whether it belongs together. The
    answers about all texts of an image are one prediction, so that a sum over pairs weighs as in
    the loss."""

    predictions = 1

    def logits(self, similarities: Tensor, bias: Tensor | None) -> Tensor:
        return similarities if bias is None else similarities + bias

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def divergences(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        ours, theirs = student / temperature, teacher / temperature
        log_sigmoid = nn.functional.logsigmoid
        of_pairs = theirs.sigmoid() * (log_sigmoid(theirs) - log_sigmoid(ours))
        of_others = (-theirs).sigmoid() * (log_sigmoid(-theirs) - log_sigmoid(-ours))
        return temperature**2 * (of_pairs + of_others).sum(dim=1)

    def negative_log_likelihood(self, logits: Tensor, random: torch.Generator) -> Tensor:
        answers = torch.bernoulli(logits.detach().sigmoid().cpu(), generator=random)
        return nn.functional.binary_cross_entropy_with_logits(
            logits, answers.to(logits.device), reduction="sum"
        )
