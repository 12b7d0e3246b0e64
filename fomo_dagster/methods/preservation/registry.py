"""All preservations: those that the packages of this folder declare."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TypeAlias

from fomo_dagster.data.declarations import one_of
from fomo_dagster.methods import preservation as room
from fomo_dagster.methods.preservation.declaration import Preservation


def _declared() -> tuple[type[Preservation], ...]:
    """In the order of their packages' names, and of the declarations within each."""
    packages = [module.name for module in iter_modules(room.__path__) if module.ispkg]
    modules = [import_module(f"{room.__name__}.{name}") for name in sorted(packages)]
    return tuple(
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Preservation)
        and thing.__module__ == module.__name__
        and not thing.__name__.startswith("_")
    )


PRESERVATIONS = _declared()

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
