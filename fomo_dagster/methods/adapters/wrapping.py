"""Adapters on a model's linear layers, through PEFT: adds them, trains them, merges them away.

A family is a row of `_FAMILIES`. The layers inside attention are split first, so that each family
reaches query, key and value (PEFT reaches the fused ones only for LoRA). A merged model is plain
OpenCLIP again. AdaLoRA, whose ranks follow a schedule of their own, is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.methods.adapters.declaration import Adapters
from fomo_dagster.methods.trained_parameters.selecting import set_modes
from fomo_dagster.models.attention import join_attention, split_attention
from fomo_dagster.models.backbones import Clip

_ADAPTER = "default"  # PEFT's name of the only one


def _lora(settings: Any) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "lora_alpha": settings.scale * settings.rank,
        "lora_dropout": settings.dropout,
    }


def _lycoris(settings: Any) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "alpha": settings.scale * settings.rank,
        "rank_dropout": settings.dropout,
    }


def _vera(settings: Any) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "d_initial": settings.initial_d,
        "vera_dropout": settings.dropout,
    }


# Name → PEFT's configuration class, and its arguments for a family's parameters.
_FAMILIES: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "lora": ("LoraConfig", _lora),  # arXiv 2106.09685
    "dora": ("LoraConfig", lambda s: _lora(s) | {"use_dora": True}),  # arXiv 2402.09353
    "loha": ("LoHaConfig", _lycoris),  # arXiv 2108.06098
    "lokr": ("LoKrConfig", _lycoris),  # arXiv 2309.14859
    "vera": ("VeraConfig", _vera),  # arXiv 2310.11454
    "hra": ("HRAConfig", lambda s: {"r": s.rank}),  # arXiv 2405.17484
    "oft": ("OFTConfig", lambda s: {"r": 0, "oft_block_size": s.block_size}),  # arXiv 2306.07280
    "ia3": ("IA3Config", lambda s: {"feedforward_modules": []}),  # arXiv 2205.05638
}


@dataclass(frozen=True)
class Adapted:
    """A model with adapters; only these are trained."""

    module: Clip
    _tuner: Any
    _names: Sequence[str]

    def state(self) -> dict[str, Tensor]:
        """The adapters' tensors by name, and what they share (VeRA's projections) once."""
        tensors: dict[str, Tensor] = {}
        seen = set()
        state = self.module.state_dict()
        for name in self._names:
            if (place := state[name].data_ptr()) not in seen:
                seen.add(place)
                tensors[name] = state[name]
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave for adapters of the same kind.

        Raises `DataError` if a tensor is missing, left over or of another shape.
        """
        own = self.state()
        if own.keys() != tensors.keys():
            different = sorted(own.keys() ^ tensors.keys())
            raise DataError(
                f"the adapters do not fit the model: only one of the two has {different[0]}"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                if tensor.shape != tensors[name].shape:
                    raise DataError(
                        f"the adapters do not fit the model: {name} is {tuple(tensor.shape)}, not "
                        f"{tuple(tensors[name].shape)}"
                    )
                tensor.copy_(tensors[name])

    def merge(self) -> None:
        """Add the adapters to the weights; the module is then plain OpenCLIP, its state dict in
        the names and shapes that it had."""
        with torch.no_grad():
            self._tuner.merge_and_unload()
        join_attention(self.module)


def add_adapters(module: Clip, settings: Adapters, seed: int) -> Adapted:
    """Put adapters on the module, in place, and make it ready to train only them.

    At first it computes what it did before (hra: to rounding). `seed` decides what starts random
    (LoRA's A, VeRA's projections); torch's own generator stays as it was. Modes: see `set_modes`.

    Raises `InputError` for a target that does not exist, a rank above a target's width, and a block
    size that does not divide it.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    split_attention(module)
    targets = _targets(module, settings.targets)
    _check_sizes(targets, settings)
    before = set(module.state_dict())
    configuration, arguments = _FAMILIES[settings.name]
    config = getattr(peft, configuration)(target_modules=list(targets), **arguments(settings))
    if settings.name == "vera":
        config.projection_prng_key = seed
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](module, config, _ADAPTER)
    names = [n for n in module.state_dict() if n.replace(".base_layer.", ".") not in before]
    set_modes(module)
    return Adapted(module, tuner, names)


def _targets(module: nn.Module, wanted: Collection[str]) -> dict[str, nn.Linear]:
    """The linear layers that `wanted` names, by whole name; some of them for each."""
    linear = {n: part for n, part in module.named_modules() if isinstance(part, nn.Linear)}
    chosen = {}
    for target in wanted:
        glob = target if "*" in target or "." in target else f"*.{target}"
        found = [name for name in linear if fnmatchcase(name, glob)]
        if not found:
            last_names = {name.rpartition(".")[2] for name in linear}
            known = linear if "." in target else last_names
            raise InputError(
                f"method.targets has {target!r}, which is no linear layer of the model: "
                f"{nearest(target, known)}"
            )
        chosen.update({name: linear[name] for name in found})
    return chosen


def _check_sizes(targets: Mapping[str, nn.Linear], settings: Adapters) -> None:
    """Raise for sizes that a layer cannot have; PEFT takes ranks that only cost."""
    rank, block_size = getattr(settings, "rank", None), getattr(settings, "block_size", None)
    for name, layer in targets.items():
        width = min(layer.in_features, layer.out_features)
        if rank is not None and rank > width:
            raise InputError(
                f"method.rank is {rank}, above the width of {name}, which is {width}: lower it, "
                "or leave the layer out of method.targets"
            )
        if block_size is not None and layer.in_features % block_size:
            raise InputError(
                f"method.block_size is {block_size}, which does not divide the "
                f"{layer.in_features} inputs of {name}"
            )
