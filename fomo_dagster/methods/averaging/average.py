"""The average of the trained parameters over the steps of a stage, which replaces them at the end.

Statistics of batch norms are not averaged: they stay those of the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fomo_dagster.distributed.parameter_shards import UNSHARDED, ParameterShards
from fomo_dagster.errors import InputError
from fomo_dagster.methods.averaging.declaration import AnyAverage, ExponentialAverage
from fomo_dagster.methods.preservation.weight_penalty import copies


class Average:
    """An average of parameters in fp32, on their device, that begins with what they hold now.

    Of the steps 1, 2, … those are taken that `every` divides. With θ_n as the n-th of them left the
    weights, and θ_0 as the start,

    - exponential: `e_n = decay · e_(n-1) + (1 - decay) · θ_n`, e_0 = θ_0, as in FoMo-in-Flux
      (arXiv 2408.14471);
    - uniform: the mean of θ_0, …, θ_n (the weight ensemble of ZSCL, arXiv 2303.06628, whose code
      counts steps from 0 and so takes those one later, and the first).

    Raises `InputError` if none of the `steps` of the stage would be taken.
    """

    def __init__(
        self,
        settings: AnyAverage,
        trained: Mapping[str, nn.Parameter],
        steps: int,
        shards: ParameterShards = UNSHARDED,
    ) -> None:
        if settings.every > steps:
            raise InputError(
                f"method.average.every is {settings.every}, but the stage has only {steps} "
                "steps, so it would end where it started: lower it, or raise the budget"
            )
        self._settings, self._trained, self._shards = settings, trained, shards
        self._values = copies(trained)
        self._steps = 0

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in the parameters as a step has left them, if it is one that counts."""
        self._steps += 1
        taken, rest = divmod(self._steps, self._settings.every)
        if rest:
            return
        share = 1 / (taken + 1)
        if isinstance(self._settings, ExponentialAverage):
            share = 1 - self._settings.decay
        for name, value in self._values.items():
            value.lerp_(self._trained[name], share)

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Give the parameters the values of the average."""
        for name, value in self._values.items():
            self._trained[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """For a resume point."""
        values = {name: self._shards.whole(name, value) for name, value in self._values.items()}
        return {"values": values, "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._steps = state["steps"]
        for name, value in self._values.items():
            value.copy_(self._shards.part(name, state["values"][name]))
