"""GaLore and Fira by pytorch_optimizer, with state that can be saved as plain data.

The dimensions that hold a matrix's moments come from a singular value decomposition of its
gradient, at the first step and `update_gap` steps after each choice, as in the authors' code. The
library counts the first step as 1 and would choose a step early. It keeps the dimensions in an
object of its own next to the moments, while a resume point holds only tensors and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_optimizer import Fira as FiraSteps
from pytorch_optimizer import GaLore as GaLoreSteps
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from torch import Tensor

from fomo_dagster.errors import InputError

_PROJECTOR = "projector"


class _Projector(GaLoreProjector):
    """Counts steps from 0, so that choices are `update_gap` steps apart from the first on."""

    def project(self, grad: Tensor, num_steps: int, *args: Any, **further: Any) -> Tensor:
        projected: Tensor = super().project(grad, num_steps - 1, *args, **further)
        return projected


class _PlainState:
    """Between an optimiser and `torch.optim.Optimizer`: its projectors are ours, are saved as
    mappings of what they hold, and made of these again."""

    def init_group(self, group: dict[str, Any], **further: Any) -> None:
        super().init_group(group, **further)  # type: ignore[misc]
        for parameter in group["params"] if "rank" in group else ():
            if parameter.grad is not None and _PROJECTOR not in self.state[parameter]:  # type: ignore[attr-defined]
                self.state[parameter][_PROJECTOR] = _Projector(  # type: ignore[attr-defined]
                    rank=group["rank"],
                    update_proj_gap=group["update_proj_gap"],
                    scale=group["scale"],
                    projection_type=group["projection_type"],
                )

    def state_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        state = {
            place: {
                key: dict(vars(value)) if key == _PROJECTOR else value
                for key, value in of_one.items()
            }
            for place, of_one in saved["state"].items()
        }
        return saved | {"state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)  # type: ignore[misc]
        for of_one in self.state.values():  # type: ignore[attr-defined]
            if _PROJECTOR in of_one:
                projector = _Projector()
                vars(projector).update(of_one[_PROJECTOR])
                of_one[_PROJECTOR] = projector


class ResumableGaLore(_PlainState, GaLoreSteps):
    """pytorch_optimizer's, whose state is plain."""


class ResumableFira(_PlainState, FiraSteps):
    """pytorch_optimizer's, whose state is plain."""


def low_rank_groups(
    groups: Sequence[dict[str, Any]], *, rank: int, update_gap: int, scale: float
) -> list[dict[str, Any]]:
    """The groups with matrices that have both sides above the rank apart from all else.

    Raises `InputError` if there is no such matrix.
    """
    given = [p for group in groups for p in group["params"]]
    matrices = {id(p) for p in given if p.dim() == 2 and min(p.shape) > rank}
    if not matrices:
        largest = max((min(p.shape) for p in given if p.dim() == 2), default=None)
        there = "no matrix" if largest is None else f"no matrix with both sides above {largest}"
        raise InputError(
            f"optimiser.rank is {rank}, and {there} is trained: lower the rank, or take "
            "optimiser.name: adamw"
        )
    of_matrices = {
        "rank": rank, "update_proj_gap": update_gap, "scale": scale, "projection_type": "std",
    }  # fmt: skip
    divided = []
    for group in groups:
        for is_matrix, further in ((True, of_matrices), (False, {})):
            params = [p for p in group["params"] if (id(p) in matrices) is is_matrix]
            if params:
                divided.append({**group, **further, "params": params})
    return divided
