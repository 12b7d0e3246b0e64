"""Every method that an experiment file can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fomo_dagster.data.declarations import one_of
from fomo_dagster.methods.adapters.declaration import FAMILIES
from fomo_dagster.methods.declaration import Finetune, Method

if TYPE_CHECKING:
    AnyMethod: TypeAlias = Method
else:
    AnyMethod = one_of((Finetune, *FAMILIES), "name", "finetune")
