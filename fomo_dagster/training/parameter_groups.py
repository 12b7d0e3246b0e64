"""The trained parameters in groups that the optimiser treats the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.trained_parameters.selecting import tower_of
from fomo_dagster.models.backbones import Clip
from fomo_dagster.training.depth import distances_from_the_end
from fomo_dagster.training.sharding import blocks_of


def grouped(
    module: Clip, trained: Mapping[str, nn.Parameter], settings: TrainingSettings
) -> list[dict[str, Any]]:
    """The trained parameters of the module, by name, in groups as torch's optimisers take them.

    Beside `params` and `weight_decay` a group has `factor`, times which it takes the learning rate,
    and `tower`, image or text, where one of them warms up (None: there is no telling apart). As
    long as nothing is to be told apart there is one group. For optimisers that tell them, `hidden`
    marks the matrices within the towers' blocks.
    Raises `InputError` if the depth that a learning rate goes by cannot be told.
    """
    optimiser = settings.optimiser
    decayed = {
        name
        for name, parameter in trained.items()
        if optimiser.weight_decay_on == "all" or parameter.dim() >= 2
    }
    distances = dict.fromkeys(trained, 0)
    if optimiser.layer_decay < 1:
        distances |= distances_from_the_end(module, trained)
    hidden = _hidden_matrices(module, trained) if optimiser.tells_hidden else set()
    groups: dict[Any, dict[str, Any]] = {}
    for name, parameter in trained.items():
        values: dict[str, Any] = {
            "weight_decay": optimiser.weight_decay if name in decayed else 0.0,
            "factor": optimiser.layer_decay ** distances[name],
            "tower": tower_of(name) if settings.tower_warmup is not None else None,
        }
        if optimiser.tells_hidden:
            values["hidden"] = name in hidden
        group = groups.setdefault(tuple(values.values()), {"params": [], **values})
        group["params"].append(parameter)
    return list(groups.values())


def _hidden_matrices(module: Clip, trained: Mapping[str, nn.Parameter]) -> set[str]:
    within = {id(p) for block in blocks_of(module) for p in block.parameters()}
    return {name for name, p in trained.items() if p.dim() == 2 and id(p) in within}
