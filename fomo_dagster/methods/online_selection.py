"""Online selection: of a larger batch, which rows are trained on.

A training that selects draws ⌊k / share + ½⌋ samples of a pool for each k that its mixture asks
for, and keeps k of them, pool by pool, so that the mixture stays what it is. Which ones is decided
anew at every step, and nothing is remembered of it.

Not covered: joint selection of a whole batch (JEST, arXiv 2406.17711), which scores what is left
once a part was chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fomo_dagster.data.batches import Batch as ChosenBatch
from fomo_dagster.data.mixture import kept_of
from fomo_dagster.experiment import online_selection as declared
from fomo_dagster.methods.frozen import Frozen
from fomo_dagster.methods.preservation import Batch, Beginning
from fomo_dagster.models.backbones import Model
from fomo_dagster.process_group import ProcessGroup
from fomo_dagster.store.digests import digest_of

Features = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Images (N, 3, H, W) and tokens (N, L), and how many of them at once, to the features that the
model which is trained has of them now, each (N, D), fp32, L2-normalised, without a gradient."""


class OnlineSelection(ABC):
    """Keeps the rows with the highest scores of each pool; of equal ones, the first.

    Of several processes each has its part of a batch, and its part of the rows that are kept.
    """

    def __init__(self, share: float, group: ProcessGroup) -> None:
        self._share, self._group = share, group

    def kept(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many rows of each pool are kept of so many."""
        return {pool: kept_of(count, self._share) for pool, count in counts.items()}

    def choose(self, batch: Batch, seed: int) -> Batch:
        """The batch of the rows that are kept, in their order. seed: of the step."""
        scores, kept = self._scores(batch, seed), self.kept(batch.counts)
        chosen, start = [], 0
        for pool, count in batch.counts.items():
            of_pool = scores[start : start + count]
            best = of_pool.argsort(descending=True, stable=True)[: kept[pool]]
            chosen.append(start + best.sort().values)
            start += count
        rows = torch.cat(chosen).cpu()  # of the whole batch
        own = self._group.mine(rows)

        def kept_of_all(part: Tensor) -> Tensor:
            return self._group.part(self._group.gather(part[own.to(part.device)], rows))

        texts = self._group.gather_texts([batch.texts[row] for row in own.tolist()], rows)
        return ChosenBatch(
            kept_of_all(batch.images),
            kept_of_all(batch.tokens),
            kept_of_all(batch.drawn),
            texts[self._group.rank :: self._group.count],
            kept,
        )

    @abstractmethod
    def _scores(self, batch: Batch, seed: int) -> Tensor:
        """(N,), of all rows of a batch, of which this process has a part."""


class RandomSelection(OnlineSelection):
    """Scores by chance, from the seed of the step alone."""

    def _scores(self, batch: Batch, seed: int) -> Tensor:
        key = int(digest_of(["online selection", seed]), 16)
        words = np.random.Philox(key=key).random_raw(sum(batch.counts.values()))
        return torch.from_numpy((words >> 1).astype(np.int64))


class Learnability(OnlineSelection):
    """Scores by learnability (ActiveCLIP, arXiv 2312.05328; RHO-LOSS, arXiv 2206.07137).

    Of pair i of the N that were drawn, all pools together,

        s_i = ℓ_i(learner) - ℓ_i(reference)
        ℓ_i = -½ (log softmax_j(exp(a) f_i·g_j)_i + log softmax_j(exp(a) f_j·g_i)_i)

    where f and g are a model's L2-normalised features of images and texts, and `a` its own logit
    scale: CLIP's contrastive loss of the pair, whatever loss is trained with. What both find hard,
    as pairs that do not belong together, is not chosen, nor what both find easy. The learner is
    taken as it is before the step, both models in evaluation mode; they see the same augmented
    pixels, the reference in its own size and colours, and the same texts in its own tokens.
    """

    def __init__(
        self, share: float, beginning: Beginning, features: Features, reference: Model
    ) -> None:
        super().__init__(share, beginning.group)
        self._features = features
        self._logit_scale: Tensor = beginning.model.module.logit_scale
        self._device = beginning.device
        self._reference = Frozen(reference, beginning)

    @torch.no_grad()
    def _scores(self, batch: Batch, seed: int) -> Tensor:
        reference = self._reference
        size = sum(self.kept(batch.counts).values())  # no more at once than are trained on
        images = [part.to(self._device) for part in torch.split(batch.images, size)]
        of_images, of_texts = self._features(batch.images, batch.tokens, size)
        theirs = torch.split(reference.model.tokenize(batch.texts), size)
        learner = self._losses([of_images], [of_texts], self._logit_scale, batch)
        known = self._losses(
            [reference.images(part) for part in images],
            [reference.texts(part) for part in theirs],
            reference.logit_scale, batch,
        )  # fmt: skip
        return learner - known

    def _losses(
        self,
        images: Sequence[Tensor],
        texts: Sequence[Tensor],
        logit_scale: Tensor,
        batch: Batch,
    ) -> Tensor:
        """(N,), from the features, in pieces, of the rows that this process has."""
        rows = torch.arange(sum(batch.counts.values()))
        of_images, of_texts = (
            self._group.gather(torch.cat([*pieces]), rows) for pieces in (images, texts)
        )
        return pair_losses(of_images, of_texts, logit_scale)


def pair_losses(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's contrastive loss of each pair among all of them: (N, D), (N, D) → (N,)."""
    logits = logit_scale.exp() * images @ texts.T  # (N, N)
    answers = torch.arange(len(logits), device=logits.device)
    by_image = nn.functional.cross_entropy(logits, answers, reduction="none")
    by_text = nn.functional.cross_entropy(logits.T, answers, reduction="none")
    return (by_image + by_text) / 2


def begin_selection(
    settings: declared.AnyOnlineSelection,
    reference: Callable[[], Model] | None,
    beginning: Beginning,
    features: Features,
) -> OnlineSelection:
    """What `settings` ask for. reference: loads the other model that they name, on the CPU."""
    if isinstance(settings, declared.RandomSelection):
        return RandomSelection(settings.share, beginning.group)
    assert reference is not None
    return Learnability(settings.share, beginning, features, reference())
