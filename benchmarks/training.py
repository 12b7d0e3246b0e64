"""A training step: the engine's loop against a bare PyTorch loop, and GradCache's price and gain.

The same small CLIP, batch, loss, optimiser and clipping; the batches are made beforehand. Each row
is a process of its own, so that its peak memory is its own.

    python benchmarks/training.py [--batch 64] [--steps 8] [--micro 16]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip.loss import ClipLoss
from pictures import SMALL_CLIP, peak_memory, print_figures
from torch import Tensor, nn

from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models.backbones import create
from fomo_dagster.training.loop import train
from fomo_dagster.training.spec import StageSpec, TrainingRun

WARM = 2


class Batch(NamedTuple):
    """As the engine takes it."""

    images: Tensor
    tokens: Tensor
    counts: dict[str, int]


class Repeated:
    """The same batch at every step; it notes when the clock starts, after `WARM` steps."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.steps = steps + WARM
        self.started = 0.0
        self._batch = batch

    def iterate(self, start: int) -> Iterator[Batch]:
        for step in range(start, self.steps):
            if step == WARM:
                self.started = time.perf_counter()
            yield self._batch


def measure(loop: str, batch_size: int, steps: int, micro: int | None) -> tuple[float, float]:
    """Images a second and peak MiB."""
    torch.set_num_threads(1)
    model = create(SMALL_CLIP, 0)
    images = torch.randn(batch_size, 3, model.image_size, model.image_size)
    texts = [f"picture number {i}" for i in range(batch_size)]
    tokens = model.tokenize(texts)
    drawn = torch.zeros(batch_size, 2, dtype=torch.int64)
    repeated = Repeated(Batch(images, tokens, drawn, texts, {"update": batch_size}), steps)
    if loop == "bare":
        optimiser = torch.optim.AdamW(model.module.parameters(), lr=1e-5, fused=True)
        loss_of = ClipLoss()
        for batch in repeated.iterate(0):
            optimiser.zero_grad()
            image_features, text_features, scale = model.module(batch.images, batch.tokens)
            loss_of(image_features, text_features, scale).backward()
            nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
            optimiser.step()
    else:
        select_trained(model.module, "all")
        with tempfile.TemporaryDirectory() as folder:
            train(
                model, repeated,
                StageSpec(
                    settings=TrainingSettings(batch_size=batch_size), seed=0, stage=1,
                    execution=Execution(device="cpu", micro_batch_size=micro),
                ),
                TrainingRun(resume_folder=Path(folder), identity="benchmark"),
            )  # fmt: skip
    return steps * batch_size / (time.perf_counter() - repeated.started), peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--micro", type=int, default=16)
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for what, loop, micro in (
        ("bare loop", "bare", None),
        ("engine", "engine", None),
        (f"engine, micro-batches of {arguments.micro}", "engine", arguments.micro),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (loop, arguments.batch, arguments.steps, micro))
        rows.append((what, *found))
    print_figures(f"Batches of {arguments.batch}", ("loop", "images/s", "peak MiB"), rows)


if __name__ == "__main__":
    main()
