"""All preservations: those that the packages of this folder declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fomo_dagster.data.declarations import one_of
from fomo_dagster.found import found_in
from fomo_dagster.methods import preservation as room
from fomo_dagster.methods.preservation.declaration import Preservation

PRESERVATIONS = tuple(found_in(room, Preservation, packages=True))  # type: ignore[type-abstract]

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs

    AnyPreservation: TypeAlias = Preservation
else:
    AnyPreservation = one_of(PRESERVATIONS, "name")


def begin(
    settings: Preservation | None, stage_inputs: StageInputs, stage_context: StageContext
) -> StageHooks:
    """The hooks that `settings` ask for, for one stage; plain training if they are None."""
    from fomo_dagster.methods.preservation.hooks import StageHooks

    if settings is None:
        return StageHooks(stage_context)
    return settings.begin(stage_context, stage_inputs)
