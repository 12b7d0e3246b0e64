"""What the layers of a model see of some batches: the second moments of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fomo_dagster.data.transforms import normalise
from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.methods.preservation.hooks import Batch, StageContext
from fomo_dagster.methods.trained_parameters.selecting import tower_of


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


def input_squares(
    stage_context: StageContext,
    layers: Mapping[str, tuple[nn.Module, int]],
    batches: Iterable[Batch],
) -> Iterator[dict[str, Tensor]]:
    """For each batch XᵀX, (n, n), of each layer's inputs X (rows, n), over all processes. It is
    overwritten by the next one.

    layers: name, which begins with `visual.` in the image tower → the layer, and n. The model
    computes in evaluation mode and without gradients; its modes stay as they were.
    """
    model, device = stage_context.model, stage_context.device
    squares = {
        name: torch.zeros(width, width, device=device) for name, (_, width) in layers.items()
    }
    towers = {tower_of(name) for name in layers}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            squares[name].addmm_(seen.T, seen)

        return layers[name][0].register_forward_pre_hook(see)

    handles = [watch(name) for name in layers]
    try:
        for batch in batches:
            images = batch.images.to(device)
            if images.dtype == torch.uint8:
                images = normalise(images, model.mean, model.std)
            with torch.no_grad(), evaluating(model.module), stage_context.autocast():
                if "image" in towers:
                    model.module.encode_image(images)
                if "text" in towers:
                    model.module.encode_text(batch.tokens.to(device))
            stage_context.group.all_reduce_sum([*squares.values()])
            yield squares
            for square in squares.values():
                square.zero_()
    finally:
        for handle in handles:
            handle.remove()


def of_the_first(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """The first process's tensor, in each: eigenvectors of other machines differ in their last
    digits."""
    if not group.is_main:
        tensor = torch.zeros_like(tensor)
    group.all_reduce_sum([tensor])
    return tensor


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it the module is in evaluation mode; afterwards each part has the mode it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
