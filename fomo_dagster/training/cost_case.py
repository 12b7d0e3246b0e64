"""What decides the cost of a training's steps. Imports no PyTorch, since assets declare it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.declaration import Method
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection


@dataclass(frozen=True, kw_only=True)
class CostCase:
    """A step of a method, in which each pool has so many rows."""

    architecture: str | dict[str, Any]
    method: Method
    settings: TrainingSettings
    sizes: Mapping[str, int]
    """Pool → rows of a batch."""
    goes_on: bool = True
    """Whether there is a stage before, whose importances and features are continued."""
    update_samples: int | None = None
    """Of the chunk, where it is known: estimates over it take no more."""
    reference: str | dict[str, Any] | None = None
    """The architecture of the other model that the method's preservation looks at, if any."""
    selection: AnyOnlineSelection | None = None
    """Of larger batches the rows in `sizes` are kept, where there is one."""
