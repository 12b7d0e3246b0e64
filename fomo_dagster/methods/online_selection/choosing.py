"""Online selection: which rows of a larger batch are trained on.

For each k samples that the mixture asks of a pool, a training with selection draws ⌊k / share + ½⌋
and keeps k, pool by pool, so the mixture stays exact. The choice is made anew at every step, and
nothing is remembered of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fomo_dagster.data.batches import Batch as ChosenBatch
from fomo_dagster.data.mixture import kept_of
from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.methods.online_selection import declaration as declared
from fomo_dagster.methods.preservation.frozen import Frozen
from fomo_dagster.methods.preservation.hooks import Batch, StageContext
from fomo_dagster.models.backbones import Model
from fomo_dagster.store.digests import digest_of

Features = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (N, 3, H, W) and tokens (N, L), and how many of them at once, to the features that the
model which is trained has of them now, each (N, D), fp32, L2-normalised, without a gradient."""


class OnlineSelection(ABC):
    """Keeps some rows of each pool.

    With several processes, each has its part of a batch and its part of the rows kept.
    """

    def __init__(self, share: float, group: ProcessGroup) -> None:
        self._share, self._group = share, group

    def kept(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many rows of each pool are kept of so many."""
        return {pool: kept_of(count, self._share) for pool, count in counts.items()}

    def choose(self, batch: Batch, seed: int) -> Batch:
        """The batch of the rows that are kept, in their order. seed: that of the step."""
        rows = self._rows(batch, self.kept(batch.counts), seed).sort().values.cpu()
        own = self._group.mine(rows)

        def kept_of_all(part: Tensor) -> Tensor:
            return self._group.part(self._group.gather(part[own.to(part.device)], rows))

        texts = self._group.gather_texts([batch.texts[row] for row in own.tolist()], rows)
        return ChosenBatch(
            kept_of_all(batch.images),
            kept_of_all(batch.tokens),
            kept_of_all(batch.drawn),
            texts[self._group.rank :: self._group.world_size],
            self.kept(batch.counts),
        )

    @abstractmethod
    def _rows(self, batch: Batch, kept: Mapping[str, int], seed: int) -> Tensor:
        """Which rows of the whole batch are kept, so many of each pool, in any order."""


class RandomSelection(OnlineSelection):
    """Keeps any rows, chosen by the seed of the step alone."""

    def _rows(self, batch: Batch, kept: Mapping[str, int], seed: int) -> Tensor:
        words = _random_words("online selection", seed, sum(batch.counts.values()))
        return _highest(torch.from_numpy((words >> 1).astype(np.int64)), batch.counts, kept)


class _Scoring(OnlineSelection):
    """Uses the learner as it is before the step, and a reference model, both in evaluation mode.
    They see the same augmented pixels, the reference in its own size and colours, and the same
    texts in its own tokens."""

    def __init__(
        self, share: float, stage_context: StageContext, features: Features, reference: Model
    ) -> None:
        super().__init__(share, stage_context.group)
        self._features = features
        self._logit_scale: Tensor = stage_context.model.module.logit_scale
        self._device = stage_context.device
        self._reference = Frozen(reference, stage_context)

    @torch.no_grad()
    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The learner's and the reference's, exp(a) f_i·g_j, each (N, N)."""
        reference = self._reference
        size = sum(self.kept(batch.counts).values())  # no more at once than are trained on
        images = [part.to(self._device) for part in torch.split(batch.images, size)]
        of_images, of_texts = self._features(batch.images, batch.tokens, size)
        theirs = torch.split(reference.model.tokenize(batch.texts), size)
        learner = self._of_all([of_images], [of_texts], self._logit_scale, batch)
        known = self._of_all(
            [reference.images(part) for part in images],
            [reference.texts(part) for part in theirs],
            reference.logit_scale, batch,
        )  # fmt: skip
        return learner, known

    def _of_all(
        self,
        images: Sequence[Tensor],
        texts: Sequence[Tensor],
        logit_scale: Tensor,
        batch: Batch,
    ) -> Tensor:
        """(N, N), from the features, in pieces, of the rows that this process has."""
        rows = torch.arange(sum(batch.counts.values()))
        of_images, of_texts = (
            self._group.gather(torch.cat([*pieces]), rows) for pieces in (images, texts)
        )
        return logit_scale.exp() * of_images @ of_texts.T


class Learnability(_Scoring):
    """Keeps the rows with the highest learnability (ActiveCLIP, arXiv 2312.05328; RHO-LOSS,
    arXiv 2206.07137); of equal ones, the first.

    Of pair i of the N that were drawn, all pools together,

        s_i = ℓ_i(learner) - ℓ_i(reference)
        ℓ_i = -½ (log softmax_j(exp(a) f_i·g_j)_i + log softmax_j(exp(a) f_j·g_i)_i)

    where f and g are a model's L2-normalised features of images and texts, and `a` its own logit
    scale: CLIP's contrastive loss of the pair, whatever loss is trained with. What both find hard,
    as pairs that do not belong together, is not chosen, nor what both find easy.
    """

    def _rows(self, batch: Batch, kept: Mapping[str, int], seed: int) -> Tensor:
        return _highest(self._scores(batch), batch.counts, kept)

    def _scores(self, batch: Batch) -> Tensor:
        learner, known = self._logits(batch)
        return _pair_losses(learner) - _pair_losses(known)


class Jest(_Scoring):
    """Chooses a batch that is learnable as a whole, so many chunks one after another (JEST, arXiv
    2406.17711, algorithm 1, with the contrast of the softmax).

    Each chunk is drawn without replacement, from softmax_i(s_i) over the rows of a pool that are
    left, s_i being the learnability of pair i among those S that were chosen before, of all pools:

        s_i = ℓ_i(learner) - ℓ_i(reference)
        ℓ_i = -z_ii + ½ (log Σ_{j∈S} exp z_ij + log Σ_{j∈S} exp z_ji),   z_ij = exp(a) f_i·g_j

    without the sums for the first chunk. So a pair is worth more the harder those that are there
    make it for the learner. Draws follow from the seed of the step.
    """

    def __init__(
        self,
        share: float,
        chunks: int,
        stage_context: StageContext,
        features: Features,
        reference: Model,
    ) -> None:
        super().__init__(share, stage_context, features, reference)
        self._chunks = chunks

    @torch.no_grad()
    def _rows(self, batch: Batch, kept: Mapping[str, int], seed: int) -> Tensor:
        learner, known = self._logits(batch)
        taken = torch.zeros(len(learner), dtype=torch.bool, device=learner.device)
        alone = known.diagonal() - learner.diagonal()
        chosen: list[Tensor] = []
        for turn in range(self._chunks):
            scores = alone
            if chosen:
                scores = alone + _contrast(learner, taken) - _contrast(known, taken)
            # The highest of scores with Gumbel's noise are drawn without replacement from their
            # softmax (arXiv 1903.06059).
            scores = scores + _gumbel(seed, turn, len(scores)).to(scores)
            scores = scores.masked_fill(taken, -math.inf)
            sizes = {pool: self._size_of(turn, count) for pool, count in kept.items()}
            chosen.append(_highest(scores, batch.counts, sizes))
            taken[chosen[-1]] = True
        return torch.cat(chosen)

    def _size_of(self, turn: int, count: int) -> int:
        """How many of `count` rows a turn adds; the first one adds some."""
        before, after = (-(-count * done // self._chunks) for done in (turn, turn + 1))
        return after - before


def _contrast(logits: Tensor, taken: Tensor) -> Tensor:
    """The logarithm of what stands against each pair among those that are taken: (N, N), (N,) →
    (N,), over texts and over images, the mean of the two."""
    by_image = logits.masked_fill(~taken, -math.inf).logsumexp(1)
    by_text = logits.masked_fill(~taken[:, None], -math.inf).logsumexp(0)
    return (by_image + by_text) / 2


def _pair_losses(logits: Tensor) -> Tensor:
    """CLIP's contrastive loss of each pair among all of them: (N, N) → (N,)."""
    answers = torch.arange(len(logits), device=logits.device)
    by_image = nn.functional.cross_entropy(logits, answers, reduction="none")
    by_text = nn.functional.cross_entropy(logits.T, answers, reduction="none")
    return (by_image + by_text) / 2


def _highest(scores: Tensor, counts: Mapping[str, int], kept: Mapping[str, int]) -> Tensor:
    """The rows with the highest scores of each pool, so many; of equal ones, the first."""
    chosen, start = [], 0
    for pool, count in counts.items():
        best = scores[start : start + count].argsort(descending=True, stable=True)
        chosen.append(start + best[: kept[pool]])
        start += count
    return torch.cat(chosen)


def _gumbel(seed: int, turn: int, count: int) -> Tensor:
    """(count,), float64, of the standard Gumbel distribution."""
    words = _random_words("online selection in turns", [seed, turn], count)
    uniform = ((words >> 11) + 0.5) * 2.0**-53
    return torch.from_numpy(-np.log(-np.log(uniform)))


def _random_words(what: str, seed: int | list[int], count: int) -> Any:
    """(count,) words of 64 random bits, the same on every machine."""
    return np.random.Philox(key=int(digest_of([what, seed]), 16)).random_raw(count)


def begin_selection(
    settings: declared.AnyOnlineSelection,
    reference: Callable[[], Model] | None,
    stage_context: StageContext,
    features: Features,
) -> OnlineSelection:
    """What `settings` ask for. reference: loads the other model that they name, on the CPU."""
    if isinstance(settings, declared.RandomSelection):
        return RandomSelection(settings.share, stage_context.group)
    assert reference is not None
    if isinstance(settings, declared.Jest):
        return Jest(settings.share, settings.chunks, stage_context, features, reference())
    return Learnability(settings.share, stage_context, features, reference())
