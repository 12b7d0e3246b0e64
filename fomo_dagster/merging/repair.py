"""REPAIR: restores the activation statistics that averaging weights destroys (arXiv 2211.08403).

Merged weights let the variance of activations collapse. Every MLP of the transformer blocks is
corrected: each channel of its first layer's output gets the mean and standard deviation that it has
on average in the merged models, over the samples and positions of a small calibration set. A
correction is folded into the layer's weight and bias, so the result is a model like any other.
Later layers see it.

Not covered: the normalisation layers that the paper's networks want reset (a transformer has none
with running statistics), attention, and towers without such layers, which are refused. Everything
is computed on the CPU in single precision, statistics in double. One model is held at a time, with
the activations of one layer for all samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fomo_dagster.errors import DataError, InputError

FIRST_LAYER = re.compile(r"(.+\.)?mlp\.(c_fc|fc1)")
"""Of an MLP, as OpenCLIP and timm call it."""
ROWS_AT_ONCE = 2**12
DEAD = 1e-6
"""The share of its target deviation below which nothing of a channel is left to scale."""

Moments: TypeAlias = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel, (C,), float64."""


class Clip(Protocol):
    """What is used of a model in evaluation mode."""

    def encode_image(self, images: Tensor) -> Tensor: ...

    def encode_text(self, tokens: Tensor) -> Tensor: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def state_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Calibration:
    """N samples as a model sees them at evaluation."""

    images: Tensor
    """(N, 3, H, W), fp32, normalised."""
    tokens: Tensor
    """(N, L), int64."""


Visit: TypeAlias = Callable[[str, nn.Linear, Tensor, Moments], Tensor | None]
"""Sees a layer's name, the layer, its input, and the moments of its output; what it returns takes
the output's place."""


def repair(
    load: Callable[[Path], Clip],
    models: Sequence[Path],
    merged: Path,
    output: Path,
    calibration: Calibration,
    shares: Sequence[float],
) -> None:
    """Write the merged weights with corrected MLPs, as fp32 safetensors.

    load: a file of weights → a model of its own on the CPU in evaluation mode. shares: of the
    models in the averages. output: may be `merged` itself.

    A channel that has (nearly) no deviation left after the merge keeps its scale; its mean is
    corrected. What fills up the end of a text is not counted.
    Raises `InputError` for a tower without such layers, or with one without bias; `DataError` where
    activations are not finite.
    """
    targets: dict[str, Moments] = {}
    for path, share in zip(models, shares, strict=True):
        for name, moments in _measured(load(path), calibration).items():
            before = targets.get(name)
            weighed = (share * moments[0], share * moments[1])
            targets[name] = (
                weighed if before is None else (before[0] + weighed[0], before[1] + weighed[1])
            )
    corrected = load(merged)
    _correct(corrected, calibration, targets)
    weights = corrected.state_dict()
    save_file({name: weights[name].contiguous() for name in sorted(weights)}, output)


def _measured(model: Clip, calibration: Calibration) -> dict[str, Moments]:
    found: dict[str, Moments] = {}

    def note(name: str, layer: nn.Linear, inputs: Tensor, moments: Moments) -> None:
        found[name] = moments

    _pass_through(model, calibration, note)
    return found


def _correct(model: Clip, calibration: Calibration, targets: Mapping[str, Moments]) -> None:
    """In place, each layer as the samples come to it."""

    def correct(name: str, layer: nn.Linear, inputs: Tensor, moments: Moments) -> Tensor:
        (mean, deviation), (target, target_deviation) = moments, targets[name]
        alive = deviation > DEAD * target_deviation
        scale = torch.where(alive, target_deviation / deviation, 1.0)
        layer.weight.copy_(layer.weight.double() * scale[:, None])
        layer.bias.copy_((layer.bias.double() - mean) * scale + target)
        return nn.functional.linear(inputs, layer.weight, layer.bias)

    _pass_through(model, calibration, correct)


def _pass_through(model: Clip, calibration: Calibration, visit: Visit) -> None:
    counted = calibration.tokens.flip(1).ne(0).cummax(1).values.flip(1)  # (N, L), 0 fills up
    with torch.no_grad():
        for tower, encode, inputs, positions in (
            ("image", model.encode_image, calibration.images, None),
            ("text", model.encode_text, calibration.tokens, counted),
        ):
            with _visited(_first_layers(model, tower), positions, visit):
                encode(inputs)


def _first_layers(model: Clip, tower: str) -> dict[str, nn.Linear]:
    """Raises `InputError` if there are none, or one has no bias."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and FIRST_LAYER.fullmatch(name)
        and name.startswith("visual.") == (tower == "image")
    }
    if not layers:
        raise InputError(
            "repair re-scales the MLPs of transformer blocks (mlp.c_fc, mlp.fc1), but "
            f"the {tower} tower has no such linear layers: leave repair out"
        )
    for name, layer in layers.items():
        if layer.bias is None:
            raise InputError(
                f"{name} has no bias, which repair needs to shift means: leave out repair"
            )
    return layers


@contextmanager
def _visited(
    layers: Mapping[str, nn.Linear], positions: Tensor | None, visit: Visit
) -> Iterator[None]:
    """Within it the layers' outputs are shown to `visit`; positions (N, L): those that count."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            assert isinstance(layer, nn.Linear)
            with_positions = positions is not None and output.shape[:-1] == positions.shape
            rows = output[positions] if with_positions else output.flatten(0, -2)  # (R, C)
            return visit(name, layer, inputs[0], _moments(name, rows))

        return hook

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moments(name: str, rows: Tensor) -> Moments:
    """Of (R, C); the squares are of distances from the mean, whatever its size."""
    mean = rows.sum(0, dtype=torch.float64) / len(rows)
    squares = torch.zeros_like(mean)
    for some in torch.split(rows, ROWS_AT_ONCE):
        squares += (some.double() - mean).square_().sum(0)
    deviation = (squares / len(rows)).sqrt()
    if not bool(deviation.isfinite().all()):
        raise DataError(
            f"the output of {name} is not finite on the calibration set: the weights are damaged, "
            "or one of the images is"
        )
    return mean, deviation
