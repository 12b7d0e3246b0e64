"""A pull of the weights towards earlier values, with a strength for each of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fomo_dagster.distributed.parameter_shards import UNSHARDED, ParameterShards
from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks


class WeightPenalty(StageHooks):
    """`factor / 2 · Σ_i Ω_i (θ_i - θ*_i)²` over the trained parameters, beside the loss.

    anchors: θ* by name. importances: Ω by name, of the same shapes; None: 1 for every weight. Its
    gradient is added as it is, so that nothing of it goes through autocast or a loss scale.
    """

    def __init__(
        self,
        stage_context: StageContext,
        factor: float,
        anchors: Mapping[str, Tensor],
        importances: Mapping[str, Tensor] | None,
    ) -> None:
        super().__init__(stage_context)
        self.stage_context, self.anchors, self.importances = stage_context, anchors, importances
        self._factor = factor

    def add_penalty_gradient(self) -> Tensor | None:
        stage_context = self.stage_context
        return pull(
            stage_context.trained,
            self.anchors,
            self.importances,
            self._factor,
            stage_context.shards,
        )


class ImportancePenalty(WeightPenalty):
    """A pull towards the stage's start, by importances that earlier stages left.

    Before the first stage nothing is important. Raises `InputError` if the importances are for
    other parameters than those trained, or for other shapes.
    """

    def __init__(
        self, stage_context: StageContext, factor: float, carried: Mapping[str, Tensor]
    ) -> None:
        different = sorted(carried.keys() ^ stage_context.trained.keys()) if carried else []
        if different:
            lacking = "what the stage before left" if different[0] not in carried else "this stage"
            raise InputError(
                f"stage {stage_context.stage} was left importances of other weights than it "
                f"trains: {lacking} has no {different[0]!r}; let all stages train the same "
                "weights"
            )
        for name, tensor in carried.items():
            whole = stage_context.shards.shared_out.get(name, stage_context.trained[name])
            if tensor.shape != whole.shape:
                raise InputError(
                    f"stage {stage_context.stage} was left importances of other weights than it "
                    f"trains: {name!r} has the shape {tuple(tensor.shape)} there, and "
                    f"{tuple(whole.shape)} here; let all stages train the same weights"
                )
        importances = {
            name: stage_context.shards.part(name, tensor).to(stage_context.device)
            for name, tensor in carried.items()
        }
        super().__init__(stage_context, factor, copies(stage_context.trained), importances)

    def add_penalty_gradient(self) -> Tensor | None:
        return super().add_penalty_gradient() if self.importances else None

    def carry(self, decay: float, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`decay · Ω + found`, on the CPU, whole at the first process."""
        earlier, shards = self.importances or {}, self.stage_context.shards
        carried = {
            name: decay * earlier[name] + tensor if earlier else tensor
            for name, tensor in found.items()
        }
        return {name: shards.whole(name, tensor).cpu() for name, tensor in carried.items()}


@torch.no_grad()
def pull(
    parameters: Mapping[str, nn.Parameter],
    anchors: Mapping[str, Tensor],
    importances: Mapping[str, Tensor] | None,
    factor: float,
    shards: ParameterShards = UNSHARDED,
) -> Tensor:
    """`factor / 2 · Σ_i Ω_i (θ_i - θ*_i)²`, a scalar; its gradient is added to the parameters'."""
    parts = {}
    for name, parameter in parameters.items():
        difference = parameter - anchors[name]
        weighed = difference if importances is None else importances[name] * difference
        if parameter.grad is None:
            parameter.grad = factor * weighed
        else:
            parameter.grad.add_(weighed, alpha=factor)
        parts[name] = (weighed * difference).sum()
    return factor / 2 * shards.total(parts)


def copies(tensors: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What the tensors hold now."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
