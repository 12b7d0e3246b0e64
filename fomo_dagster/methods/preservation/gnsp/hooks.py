"""GNSP: steps where the inputs of earlier data hardly reach (arXiv 2507.19839), measured and
projected as by the authors (Ppp-Ttt/GNSP).

The paper's distillation and its loss of alignment are not covered, nor the projection into the
shared space, which no layer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fomo_dagster.data.transforms import normalise
from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import Batch, StageContext, StageHooks, StageInputs
from fomo_dagster.methods.trained_parameters.selecting import tower_of


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
            name: self._shared(free_directions(moment, share))
            for name, moment in self._moments.items()
        }

    def _carried(self, carried: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = {n: (one.in_features, one.in_features) for n, one in self._layers.items()}
        found = {name: tuple(moment.shape) for name, moment in carried.items()}
        if carried and found != shapes:
            different = sorted(dict(found.items() ^ shapes.items()))[0]
            raise InputError(
                f"stage {self._stage_context.stage} was left the inputs of other layers than it "
                f"trains: {different!r} is {found.get(different, 'missing')} there and "
                f"{shapes.get(different, 'missing')} here; let all stages train the same weights"
            )
        return {name: moment.to(self._stage_context.device) for name, moment in carried.items()}

    def _measured(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """m / ‖m‖ of each layer."""
        found = second_moments(self._stage_context, self._layers, batches)
        return {name: moment / norm_of(moment) for name, moment in found.items()}

    def _shared(self, projection: Tensor) -> Tensor:
        """The first process's, lest eigenvectors of other machines differ in their last digits."""
        group = self._stage_context.group
        if not group.is_main:
            projection = torch.zeros_like(projection)
        group.all_reduce_sum([projection])
        return projection

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


def projected_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers with a trained weight, by the name of the weight. What PyTorch's attention
    holds is none of them: it computes without them, so that their inputs are not seen."""
    return {
        f"{name}.weight": layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and not isinstance(layer, NonDynamicallyQuantizableLinear)
        and layer.weight.requires_grad
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


@torch.no_grad()
def second_moments(
    stage_context: StageContext, layers: Mapping[str, nn.Linear], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """The sum over batches of XᵀX / ‖XᵀX‖, (n, n), of the inputs X of each layer, by name, over all
    processes. The modes of the module stay as they were."""
    model, device, group = stage_context.model, stage_context.device, stage_context.group
    squares = {
        name: torch.zeros(layer.in_features, layer.in_features, device=device)
        for name, layer in layers.items()
    }
    sums = {name: torch.zeros_like(square) for name, square in squares.items()}
    towers = {tower_of(name) for name in layers}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            squares[name].addmm_(seen.T, seen)

        return layers[name].register_forward_pre_hook(see)

    handles = [watch(name) for name in layers]
    try:
        with _evaluating(model.module):
            for batch in batches:
                images = batch.images.to(device)
                if images.dtype == torch.uint8:
                    images = normalise(images, model.mean, model.std)
                with stage_context.autocast():
                    if "image" in towers:
                        model.module.encode_image(images)
                    if "text" in towers:
                        model.module.encode_text(batch.tokens.to(device))
                group.all_reduce_sum([*squares.values()])
                for name, square in squares.items():
                    sums[name] += square / norm_of(square)
                    square.zero_()
    finally:
        for handle in handles:
            handle.remove()
    return sums


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
