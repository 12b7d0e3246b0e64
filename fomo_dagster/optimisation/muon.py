"""PyTorch's Muon for hidden matrices and its AdamW for all else, as one optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.errors import InputError


class MuonAndAdamW(torch.optim.Optimizer):
    """Groups with `hidden` go to Muon, the others to AdamW. Both share the groups and the state of
    this one, which a schedule sets and a resume point holds.

    A group without a mark is divided: its matrices are hidden. hidden_factor: times what `factor`
    of hidden groups is, which takes the rate.

    Raises `InputError` if there is no hidden matrix.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        hidden_factor: float,
        muon: Mapping[str, Any],
        adamw: Mapping[str, Any],
    ) -> None:
        divided = [part for group in groups for part in _divided(group)]
        if not any(group["hidden"] for group in divided):
            raise InputError(
                "optimiser.name is muon, and no matrix within the towers' blocks is trained: take "
                "adamw, or train some"
            )
        super().__init__(divided, {})
        hidden = [group for group in self.param_groups if group["hidden"]]
        for group in hidden:
            group["factor"] = group.get("factor", 1.0) * hidden_factor
        others = [group for group in self.param_groups if not group["hidden"]]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.Muon(hidden, **muon)]
        if others:
            self._parts.append(torch.optim.AdamW(others, **adamw))
        self._share()

    def _share(self) -> None:
        """Have the parts work on this one's groups and state."""
        for part in self._parts:
            is_muon = isinstance(part, torch.optim.Muon)
            part.param_groups = [g for g in self.param_groups if g["hidden"] is is_muon]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of both."""
        for part in self._parts:
            part.step()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(dict(saved))
        self._share()


def _divided(group: dict[str, Any]) -> list[dict[str, Any]]:
    if "hidden" in group:
        return [group]
    params: list[Tensor] = group["params"]
    parts = [
        {**group, "hidden": hidden, "params": [p for p in params if (p.dim() == 2) is hidden]}
        for hidden in (True, False)
    ]
    return [part for part in parts if part["params"]]
