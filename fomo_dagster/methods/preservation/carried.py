"""What a stage was left, held against the layers that it trains."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import StageContext


def carried_for(
    shapes: Mapping[str, tuple[int, ...]],
    carried: Mapping[str, Tensor],
    stage_context: StageContext,
    *,
    what: str,
    way_out: str,
) -> dict[str, Tensor]:
    """What was left, on the device; empty where nothing was.

    shapes: of what the layers of this stage go on from. what: it is, of what others. Raises
    `InputError`, which ends with `way_out`, where it is of other layers.
    """
    found = {name: tuple(left.shape) for name, left in carried.items()}
    if carried and found != shapes:
        different = sorted(dict(found.items() ^ shapes.items()))[0]
        raise InputError(
            f"stage {stage_context.stage} was left the {what} than it trains: {different!r} is "
            f"{found.get(different, 'missing')} there and {shapes.get(different, 'missing')} here; "
            f"{way_out}"
        )
    return {name: left.to(stage_context.device) for name, left in carried.items()}
