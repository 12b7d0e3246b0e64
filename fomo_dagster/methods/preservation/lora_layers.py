"""The LoRA adapters that a stage trains, and what earlier stages left of the directions they read.

It is a square matrix for each layer, as wide as the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fomo_dagster.methods.preservation.carried import carried_for
from fomo_dagster.methods.preservation.hooks import StageContext

A = ".lora_A.default.weight"  # PEFT's name, after the layer's


def lora_layers(module: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """The layers with LoRA adapters, by name, and the width of their inputs."""
    parameters = dict(module.named_parameters())
    return {
        name: (layer, parameters[name + A].shape[1])
        for name, layer in module.named_modules()
        if name + A in parameters
    }


def shapes_of_directions(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Layer → (n, n) of what is carried of it."""
    return {name: (width, width) for name, (_, width) in lora_layers(module).items()}


def carried_directions(
    stage_context: StageContext, carried: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """As `carried_for`, of the layers with adapters."""
    return carried_for(
        shapes_of_directions(stage_context.model.module),
        carried,
        stage_context,
        what="directions of other adapters",
        way_out="let all stages have the same method.targets",
    )
