"""Files beside the models of a merge, one for each, whose tensors have other shapes than theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.errors import DataError


@dataclass(frozen=True)
class Beside:
    """files: opened safetensors, by the place of the model. labels: what errors call them."""

    files: Sequence[Any]
    labels: Sequence[str]

    def layout(self, model: int) -> dict[str, tuple[int, ...]]:
        """The tensors of a model's file, and their shapes."""
        file = self.files[model]
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def tensor(self, model: int, name: str) -> Tensor:
        """A tensor of a model's file. Raises `DataError` if it is not finite."""
        found: Tensor = self.files[model].get_tensor(name)
        if not torch.isfinite(found).all():
            raise DataError(
                f"{name} of {self.labels[model]} is not finite, which a merge would spread: make "
                "these statistics again"
            )
        return found
