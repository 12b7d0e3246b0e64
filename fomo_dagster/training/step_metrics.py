"""The figures of each step, read back from the device in batches so that it does not wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple, get_type_hints

import polars as pl
import torch
from torch import Tensor


class StepMetrics(NamedTuple):
    """A step, counted from 0."""

    step: int
    loss: float
    """Contrastive, of what is learnt."""
    preservation_loss: float
    """What the method adds to it; 0 where it adds nothing."""
    learning_rate: float
    gradient_norm: float
    """Before clipping; infinite where fp16 overflowed and the step was skipped."""
    logit_scale: float
    """The logarithm, as the model holds it, that the loss was computed with."""
    samples_per_second: float
    """Of all pools, since the figures were last read: data, training and resume points."""
    update_samples: int
    buffer_samples: int
    pretraining_samples: int


_KINDS = get_type_hints(StepMetrics)  # int and float, which Polars holds in 64 bits


class StepMetricsTable:
    """The figures of all steps so far."""

    def __init__(self) -> None:
        self.rows: list[StepMetrics] = []
        self._unread: list[tuple[int, float, Mapping[str, int], Tensor]] = []
        self._read_at = time.perf_counter()

    @property
    def unread(self) -> int:
        """The number of steps whose figures may still be on the device."""
        return len(self._unread)

    def add(
        self, step: int, learning_rate: float, counts: Mapping[str, int], measured: Tensor
    ) -> None:
        """Note a step; `measured` (4,): what `Learner.step` returns, not read yet."""
        self._unread.append((step, learning_rate, counts, measured))

    def read(self) -> list[StepMetrics]:
        """Wait for the device, and return the figures not read before."""
        if not self._unread:
            return []
        measured = torch.stack([values for *_, values in self._unread]).tolist()
        now = time.perf_counter()
        samples = sum(sum(counts.values()) for _, _, counts, _ in self._unread)
        rate = samples / max(now - self._read_at, 1e-9)
        rows = [
            StepMetrics(
                step=step,
                loss=loss,
                preservation_loss=preservation_loss,
                learning_rate=learning_rate,
                gradient_norm=gradient_norm,
                logit_scale=logit_scale,
                samples_per_second=rate,
                update_samples=counts.get("update", 0),
                buffer_samples=counts.get("buffer", 0),
                pretraining_samples=counts.get("pretraining", 0),
            )
            for (step, learning_rate, counts, _), (
                loss,
                preservation_loss,
                gradient_norm,
                logit_scale,
            ) in zip(self._unread, measured, strict=True)
        ]
        self._read_at = now
        self._unread.clear()
        self.rows += rows
        return rows

    def state(self) -> Tensor:
        """All rows (steps, columns), float64, for a resume point."""
        return torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(StepMetrics._fields))

    def restore(self, state: Tensor) -> None:
        """Replace the rows by those of a resume point."""
        kinds = _KINDS.values()
        self.rows = [
            StepMetrics(*(kind(value) for kind, value in zip(kinds, row, strict=True)))
            for row in state.tolist()
        ]

    def frame(self) -> pl.DataFrame:
        """One row a step; the columns are those of `StepMetrics`."""
        return pl.DataFrame(self.rows, schema=_KINDS, orient="row")
