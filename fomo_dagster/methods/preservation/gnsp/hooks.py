"""GNSP: steps where the inputs of earlier data hardly reach (arXiv 2507.19839), measured and
projected as by the authors (Ppp-Ttt/GNSP).

The paper's distillation and its loss of alignment are not covered, nor the projection into the
shared space, which no layer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.carried import carried_for
from fomo_dagster.methods.preservation.hooks import Batch, StageContext, StageHooks, StageInputs
from fomo_dagster.methods.preservation.layer_inputs import (
    input_squares,
    of_the_first,
    projected_layers,
)


class GNSPHooks(StageHooks):
    """Of a linear layer with inputs X (samples, n), W (m, n) and gradient G:

        M ← M + m / ‖m‖,  m = Σ over batches of XᵀX / ‖XᵀX‖
        G ← G P,  P = Σ of v vᵀ over the eigenvectors v of M with the smallest eigenvalues, as many
        as have less than `share` of their sum

    M is (n, n), of all stages before and, at the first stage, of the pretraining pool through θ₀.
    G is the gradient of all that is minimised, before it is clipped. The optimiser comes after, so
    that Adam's division by each weight's second moment, and weight decay, leave the directions a
    little, as in the authors' code. Trained weights that are no linear layer's move freely.

    Raises `InputError` if no trained weight is a linear layer's, or for what a stage of other
    layers left.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        share: float,
        samples: int,
        batch_size: int,
        hold_pretraining: bool,
    ) -> None:
        super().__init__(stage_context)
        self._stage_context, self._update = stage_context, stage_inputs.update
        self._samples, self._batch_size = samples, batch_size
        layers = projected_layers(stage_context.model.module)
        self._layers = {name: layers[name] for name in layers if name in stage_context.trained}
        if not self._layers:
            raise InputError(
                "method.preserve.name is gnsp, which projects the gradients of linear layers, and "
                "none is trained: train some, for example method.train: "
                "{include: ['visual.*.mlp.c_fc.weight', 'visual.*.mlp.c_proj.weight']}"
            )
        self._moments = self._carried(stage_inputs.carried)
        if not self._moments and hold_pretraining:
            assert stage_inputs.pretraining is not None
            self._moments = self._measured(stage_inputs.pretraining(batch_size, samples))
        self._projections = {
            name: of_the_first(free_directions(moment, share), stage_context.group)
            for name, moment in self._moments.items()
        }

    def _carried(self, carried: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = {n: (one.in_features, one.in_features) for n, one in self._layers.items()}
        return carried_for(
            shapes,
            carried,
            self._stage_context,
            what="inputs of other layers",
            way_out="let all stages train the same weights",
        )

    def _measured(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """m / ‖m‖ of each layer."""
        found = second_moments(self._stage_context, self._layers, batches)
        return {name: moment / norm_of(moment) for name, moment in found.items()}

    @torch.no_grad()
    def add_penalty_gradient(self) -> Tensor | None:
        trained = self._stage_context.trained
        for name, projection in self._projections.items():
            gradient = trained[name].grad
            if gradient is not None:
                gradient.copy_(gradient @ projection)
        return None

    def end_of_stage(self) -> dict[str, Tensor]:
        assert self._update is not None
        found = self._measured(self._update(self._batch_size, self._samples))
        earlier = self._moments
        return {
            name: (earlier[name] + moment if earlier else moment).cpu()
            for name, moment in found.items()
        }


@torch.no_grad()
def free_directions(moment: Tensor, share: float) -> Tensor:
    """P (n, n) of M (n, n): see `GNSPHooks`. Computed in float64, in the type of M."""
    values, vectors = torch.linalg.eigh(moment.double())  # ascending
    below = values.clamp(min=0).cumsum(0)
    free = vectors * (below < share * below[-1])
    projection: Tensor = (free @ vectors.T).to(moment.dtype)
    return projection


def norm_of(moment: Tensor) -> Tensor:
    """‖M‖, in which a layer that saw nothing but 0 counts as 1."""
    norm = torch.linalg.matrix_norm(moment)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def second_moments(
    stage_context: StageContext, layers: Mapping[str, nn.Linear], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """The sum over batches of XᵀX / ‖XᵀX‖, (n, n), of the inputs X of each layer, by name."""
    sums: dict[str, Tensor] = {}
    seen = {name: (layer, layer.in_features) for name, layer in layers.items()}
    for squares in input_squares(stage_context, seen, batches):
        for name, square in squares.items():
            share = square / norm_of(square)
            sums[name] = sums[name] + share if name in sums else share
    return sums
