"""InfLoRA: new LoRA adapters read only what earlier data hardly had (arXiv 2404.00228), measured
and decomposed as by the authors (liangyanshuo/InfLoRA).

The paper raises the threshold towards 1 over a known number of stages; here it stays. It keeps the
complement of what is held where that is smaller (DualGPM), which is the same space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs
from fomo_dagster.methods.preservation.layer_inputs import input_squares, of_the_first
from fomo_dagster.methods.preservation.lora_layers import A, carried_directions, lora_layers


class InfLoRAHooks(StageHooks):
    """Of a layer W + scale · B A with inputs X (rows, n) of the stage's data, C being XᵀX:

    - before the first step A becomes the first r left singular vectors of (I - P) C, over √3. P
      (n, n) projects onto the directions held for earlier stages, and is 0 at the first. A stays;
      B is trained from 0;
    - after the last step C is measured anew, and P takes in the fewest further left singular
      vectors of (I - P) C with which the squared singular values that it covers reach `threshold`
      of ‖C‖² (at the first stage, as by the authors, the most that stay below it, at least one).

    Raises `InputError` for what a stage of other adapters left.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        threshold: float,
        samples: int,
        batch_size: int,
    ) -> None:
        super().__init__(stage_context)
        assert stage_inputs.update is not None
        self._stage_context, self._update = stage_context, stage_inputs.update
        self._threshold, self._samples, self._batch_size = threshold, samples, batch_size
        self._layers = lora_layers(stage_context.model.module)
        self._held = carried_directions(stage_context, stage_inputs.carried)
        self._fixed: dict[str, Tensor] = {}
        for name, square in self._squares().items():
            parameter = stage_context.trained[name + A]
            rank = stage_context.shards.shared_out.get(name + A, parameter).shape[0]
            designed = of_the_first(
                main_directions(square, self._held.get(name), rank), stage_context.group
            )
            self._fixed[name + A] = stage_context.shards.part(name + A, designed)
        self._put_back()

    def _squares(self) -> dict[str, Tensor]:
        """C of each layer."""
        sums: dict[str, Tensor] = {}
        batches = self._update(self._batch_size, self._samples)
        for squares in input_squares(self._stage_context, self._layers, batches):
            for name, square in squares.items():
                sums[name] = sums[name] + square if name in sums else square.clone()
        return sums

    @torch.no_grad()
    def _put_back(self) -> None:
        for name, designed in self._fixed.items():
            self._stage_context.trained[name].copy_(designed)

    @torch.no_grad()
    def add_penalty_gradient(self) -> Tensor | None:
        for name in self._fixed:  # so that it does not count where the whole gradient is clipped
            gradient = self._stage_context.trained[name].grad
            if gradient is not None:
                gradient.zero_()
        return None

    def after_step(self) -> None:
        self._put_back()  # weight decay moves what has no gradient, too

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        for name, designed in self._fixed.items():
            designed.copy_(self._stage_context.trained[name])

    def end_of_stage(self) -> dict[str, Tensor]:
        return {
            name: with_more_held(square, self._held.get(name), self._threshold).cpu()
            for name, square in self._squares().items()
        }


def main_directions(square: Tensor, held: Tensor | None, rank: int) -> Tensor:
    """A (rank, n) of C and P (n, n): see `InfLoRAHooks`; P None is 0."""
    _, vectors = _decomposed(square, held)
    return (vectors[:, :rank].T / 3**0.5).to(square.dtype).contiguous()


def with_more_held(square: Tensor, held: Tensor | None, threshold: float) -> Tensor:
    """P (n, n) as it is after a stage, of C and of P before it."""
    squares, vectors = _decomposed(square, held)
    total = square.double().square().sum()
    reached = squares.cumsum(0) / total
    if held is None:
        taken = reached < threshold
        taken[0] = True
        return (vectors * taken @ vectors.T).to(square.dtype)
    before = 1 - squares.sum() / total  # what P covers already
    taken = before + reached - squares / total < threshold
    return (held.double() + vectors * taken @ vectors.T).to(square.dtype)


@torch.no_grad()
def _decomposed(square: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
    """The squared singular values of (I - P) C from the largest on, (n,), and the left singular
    vectors (n, n), in float64."""
    outside = square.double()
    if held is not None:
        outside = outside - held.double() @ outside
    values, vectors = torch.linalg.eigh(outside @ outside.T)
    return values.flip(0).clamp(min=0), vectors.flip(1)
