"""LiNeS: scales a task vector by depth, less where features are general (arXiv 2410.17146)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.errors import InputError

BLOCK = re.compile(r"(.+\.)?(?:resblocks|blocks|layers?|stages)\.(\d+)\.")
_CURVES: dict[str, float] = {"linear": 1, "quadratic": 2, "sqrt": 0.5}


class Lines(Declaration):
    """Scales block l of L of a tower by `α + β · ((l - 1) / (L - 1)) ** p`.

    Everything outside the blocks (embeddings, last norms, projections, temperature) is scaled by α,
    as in the authors' code. Each tower's blocks are counted separately.
    """

    alpha: float = Field(0.5, description="α: the factor of the first block.")
    beta: float = Field(0.5, description="β: how much more the last block has.")
    curve: Literal["linear", "quadratic", "sqrt"] = Field(
        "linear", description="The exponent p: 1, 2 or ½."
    )

    def factors(self, names: Iterable[str]) -> Callable[[str], float]:
        """Parameter's name → its factor. Raises `InputError` if no name is that of a block."""
        blocks = {name: (m[1] or "", int(m[2])) for name in names if (m := BLOCK.match(name))}
        if not blocks:
            raise InputError(
                "lines scales by depth, and these checkpoints have no parameters of numbered "
                "blocks (resblocks.0, …): leave it out"
            )
        deepest: dict[str, int] = {}
        for tower, block in blocks.values():
            deepest[tower] = max(deepest.get(tower, 0), block)

        def factor(name: str) -> float:
            tower, block = blocks.get(name, ("", 0))
            depth = block / deepest[tower] if block else 0.0
            return self.alpha + self.beta * float(depth ** _CURVES[self.curve])

        return factor
