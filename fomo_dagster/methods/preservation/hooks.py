"""What a method adds to the steps of a training so that earlier abilities stay.

A preservation's hooks are a class over what a stage starts with. They can replace the loss of a
batch (`loss`), pull at the weights (`add_penalty_gradient`), follow each update, and leave tensors
for the next stage. Whatever they do not override is plain training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fomo_dagster.distributed.parameter_shards import UNSHARDED, ParameterShards
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.methods.loss.contrastive import Loss
from fomo_dagster.models.backbones import Model


class Batch(Protocol):
    """One contrastive batch of B rows: those of the update pool, then buffer, then pretraining.
    Of several processes each has its rows, as `ProcessGroup` says; B is then their number."""

    @property
    def images(self) -> Tensor:
        """(B, 3, H, W), uint8, or normalised fp32."""

    @property
    def tokens(self) -> Tensor:
        """(B, L), int64."""

    @property
    def drawn(self) -> Tensor:
        """(B, 2), int64: the row of each one's sample in its pool's manifest, if there is one, and
        the number of its caption among the sample's."""

    @property
    def texts(self) -> list[str]:
        """The texts of the tokens."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of the rows come from each pool, of all processes together."""


def unchanged(inputs: Tensor) -> Tensor:
    """The inputs as they are, where nothing encodes them."""
    return inputs


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch as the model sees it, of all processes; a gradient flows through features and logit
    scale."""

    images: Tensor
    """(B, D), fp32, L2-normalised."""
    texts: Tensor
    """(B, D), fp32, L2-normalised."""
    logit_scale: Tensor
    """The logarithm, as the model holds it."""
    logit_bias: Tensor | None
    """None if the model has none."""
    batch: Batch
    """The rows that this process has."""
    group: ProcessGroup = SINGLE_PROCESS

    def of_batch(
        self,
        inputs: Tensor,
        rows: Tensor | None = None,
        encode: Callable[[Tensor], Tensor] = unchanged,
    ) -> Tensor:
        """What `encode` makes of some rows (n,) of the batch, or of all: (n, …).

        inputs: of the rows that this process has; each process encodes its own.
        """
        if rows is None:
            return self.group.gather(encode(inputs), torch.arange(len(self.images)))
        own = self.group.mine(rows)
        # an encoder is never given nothing; one row is encoded in vain where none is wanted
        encoded = encode(inputs[own]) if len(own) or not len(rows) else encode(inputs[:1])[:0]
        return self.group.gather(encoded, rows)

    def rows(self, *pools: str) -> Tensor:
        """The numbers of the rows of some pools, (n,), int64, in their order."""
        found, start = [], 0
        for pool, count in self.batch.counts.items():
            if pool in pools:
                found.append(torch.arange(start, start + count))
            start += count
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


Objective: TypeAlias = Callable[[EmbeddedBatch], tuple[Tensor, Tensor | None]]
"""The two parts of what is minimised; see `StageHooks.loss`."""


def unscaled(loss: Tensor) -> Tensor:
    """The loss as it is, where nothing scales it for its backward pass."""
    return loss


def zero_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Leave the parameters without gradients."""
    for parameter in parameters:
        parameter.grad = None


class Gradient(Protocol):
    """Takes an objective's gradient over a batch, in micro-batches where the training has them."""

    def __call__(
        self,
        batch: Batch,
        seed: int,
        objective: Objective,
        scale: Callable[[Tensor], Tensor] = unscaled,
    ) -> Tensor:
        """Add the gradient to that of the trained parameters, of all processes together.

        The batch may be on any device. `seed` decides what is random in the towers (dropout): each
        tower and micro-batch draws from a seed of its own. `scale` is applied to the whole before
        its backward pass (loss scaling of fp16). Returns (2,), detached: the two parts, 0 where
        nothing is added.
        """


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage starts with, on the device that it trains on."""

    model: Model
    """With the weights that the stage starts from, ready to train."""
    trained: Mapping[str, nn.Parameter]
    """The parameters of `model.module` that are trained, by name; of those that are shared out,
    what this process holds."""
    loss: Loss
    """The contrastive loss."""
    gradient: Gradient
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]
    """Makes the context of the towers' forward pass, of the training's precision."""
    micro_batch_size: int | None
    """Samples on the device at once; None: a whole batch."""
    seed: int
    stage: int
    group: ProcessGroup = SINGLE_PROCESS
    """The processes that train the stage; all of them ask a preservation for the same."""
    shards: ParameterShards = UNSHARDED
    """How the parameters are shared out over the processes."""

    def copy_of_start(self) -> Model:
        """The model as the stage starts, whole, if asked before the first step."""
        return replace(self.model, module=copy.deepcopy(self.shards.origin or self.model.module))


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a preservation may use besides the training itself. Each is present if the preservation
    asks for it."""

    reference: Callable[[], Model] | None = None
    """Loads the other model that the declaration names, or the other weights of this one, on the
    CPU."""
    carried: Mapping[str, Tensor] = field(default_factory=dict)
    """What the stage before left; empty at the first."""
    replay_features: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    """(n, 2) as `Batch.drawn` of buffer rows → the features of image and text, each (n, D), that
    the stage which brought the sample left, those of the image times its temperature; and its
    bias of the logits (n,), 0 where its model had none."""
    continued: Path | None = None
    """A file of adapters to continue with."""
    selecting: Callable[[], Model] | None = None
    """Loads the model that the selection of rows looks at."""
    update: Callable[[int, int], Iterator[Batch]] | None = None
    """(samples of a batch, samples in all) → whole batches of the update pool alone, in its seeded
    order, as they are trained on: of so many samples, and of none twice."""
    pretraining: Callable[[int, int], Iterator[Batch]] | None = None
    """As `update`, of the pretraining pool."""
    pairs: Callable[[int], Iterator[Batch]] | None = None
    """The samples of `update` one by one, as batches of one, so many in all: whole pairs, shared
    out among the processes."""


class StageHooks:
    """Plain training: the contrastive loss over all rows, and nothing else."""

    def __init__(self, stage_context: StageContext) -> None:
        self._contrastive, self._likelihood = stage_context.loss, stage_context.loss.likelihood

    def loss(self, embedded: EmbeddedBatch) -> tuple[Tensor, Tensor | None]:
        """The contrastive loss, and what is added to preserve earlier abilities: scalars."""
        images, texts = embedded.images, embedded.texts
        return self._contrastive(images, texts, embedded.logit_scale, embedded.logit_bias), None

    def _contrastive_of(self, embedded: EmbeddedBatch, rows: Tensor) -> Tensor:
        """The contrastive loss of some rows (n,) among themselves."""
        images, texts = embedded.images[rows], embedded.texts[rows]
        return self._contrastive(images, texts, embedded.logit_scale, embedded.logit_bias)

    def add_penalty_gradient(self) -> Tensor | None:
        """Add to the gradients of the trained parameters, which are those of the loss, not
        scaled and not clipped yet; return the penalty whose gradient it was, detached."""
        return None

    def after_step(self) -> None:
        """Called after the weights changed."""

    def state(self) -> dict[str, Any]:
        """What was gathered since the stage began, for a resume point: tensors by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""

    def end_of_stage(self) -> dict[str, Tensor]:
        """After the last step: what the next stage starts with, tensors on the CPU by name.

        The module's modes and gradients may be left changed.
        """
        return {}
