"""A toy problem of two tasks, and trainings on it: what a preservation does is seen here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget, TrainingSettings
from fomo_dagster.methods.averaging.declaration import AnyAverage
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.methods.loss.contrastive import contrastive_loss
from fomo_dagster.methods.loss.declaration import AnyLoss, ClipLoss
from fomo_dagster.methods.online_selection.choosing import Features, OnlineSelection
from fomo_dagster.methods.preservation.hooks import StageContext, StageInputs
from fomo_dagster.methods.preservation.registry import AnyPreservation, begin
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Model
from fomo_dagster.optimisation.optimisers import AdamW
from fomo_dagster.training import loop
from fomo_dagster.training.gradcache import GradientPass
from fomo_dagster.training.precision import autocast_of
from fomo_dagster.training.spec import StageSpec, TrainingRun

CLIP = ClipLoss()
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 6, "vocab_size": 12000, "layers": 1, "width": 32, "heads": 2},
}


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow models of fewer tokens than CLIP's tokeniser has: texts here are tokens in words, and
    the embeddings of 49,408 tokens would be nearly all that a small model trains."""
    monkeypatch.setattr(backbones, "tokens_of", lambda _: 0)


def tokens_in_words(texts: list[str]) -> Tensor:
    """The tokens that a batch's texts spell."""
    return torch.tensor([[int(word) for word in text.split()] for text in texts])


@dataclass(frozen=True)
class ToyBatch:
    images: Tensor
    tokens: Tensor
    counts: dict[str, int]
    mine: tuple[int, int] = (0, 1)  # the number of its process, of how many

    @property
    def texts(self) -> list[str]:
        """The tokens in words."""
        return [" ".join(map(str, row)) for row in self.tokens.tolist()]

    @property
    def drawn(self) -> Tensor:
        """The number of each pair in its task; every one has one caption."""
        rows = torch.cat([torch.arange(count) for count in self.counts.values()])
        return torch.stack([rows, torch.zeros_like(rows)], dim=1)[self.mine[0] :: self.mine[1]]

    def part(self, group: ProcessGroup) -> ToyBatch:
        """The rows that one of several processes has."""
        rows = slice(group.rank, None, group.world_size)
        return replace(
            self,
            images=self.images[rows],
            tokens=self.tokens[rows],
            mine=(group.rank, group.world_size),
        )


@dataclass(frozen=True)
class Task:
    """Eight pairs of an image of noise and a text of random words, to be told apart."""

    number: int

    @property
    def images(self) -> Tensor:
        return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(self.number))

    @property
    def tokens(self) -> Tensor:
        random = torch.Generator().manual_seed(self.number)
        return torch.randint(1, 11999, (8, 6), generator=random)

    def batch(self, step: int, pools: Mapping[str, Task]) -> ToyBatch:
        """The task's pairs under a little noise, then those of further pools."""
        tasks = {"update": self, **pools}
        noise = torch.Generator().manual_seed(1000 + step)
        images = [
            t.images + 0.1 * torch.randn(8, 3, 16, 16, generator=noise) for t in tasks.values()
        ]
        counts = dict.fromkeys(tasks, 8)
        return ToyBatch(torch.cat(images), torch.cat([t.tokens for t in tasks.values()]), counts)

    @torch.no_grad()
    def loss(self, model: Model) -> float:
        """The contrastive loss at a temperature of 0.1, lower where it was learnt."""
        images = torch.nn.functional.normalize(model.module.encode_image(self.images), dim=-1)
        texts = torch.nn.functional.normalize(model.module.encode_text(self.tokens), dim=-1)
        logits = 10 * images @ texts.T
        labels = torch.arange(8)
        entropy = torch.nn.functional.cross_entropy
        return float(entropy(logits, labels) + entropy(logits.T, labels)) / 2


@dataclass(frozen=True)
class ToyBatches:
    task: Task
    steps: int
    pools: Mapping[str, Task] = field(default_factory=dict)
    fail_at: int | None = None
    group: ProcessGroup = SINGLE_PROCESS

    def iterate(self, start: int) -> Iterator[ToyBatch]:
        for step in range(start, self.steps):
            if step == self.fail_at:
                raise OSError("the disk is gone")
            yield self.task.batch(step, self.pools).part(self.group)


@dataclass(frozen=True)
class Toy:
    """Trainings of one stage after another, from weights that are copied."""

    folder: Path
    steps: int = 40
    learning_rate: float = 3e-3
    epsilon: float = 1e-8

    def theta(self) -> Model:
        model = backbones.create(TINY, seed=0)
        select_trained(model.module, "all")
        return replace(model, tokenize=tokens_in_words)

    def second_stage(self, preserve: Mapping[str, Any] | None) -> StageInputs:
        """What a preservation may ask for as a second stage has it, from random numbers."""
        random = torch.Generator().manual_seed(5)
        images, texts = (torch.randn(8, 16, generator=random) for _ in "it")
        shapes: Mapping[str, tuple[int, ...]] = {}
        if preserve is not None:
            declared = TypeAdapter(AnyPreservation).validate_python(preserve)
            shapes = declared.carried_shapes(self.theta().module) if declared.carries else {}
        left = {name: torch.rand(shape, generator=random) for name, shape in shapes.items()}
        return StageInputs(
            reference=self.theta, carried=left,
            replay_features=lambda drawn: (
                images[drawn[:, 0]], texts[drawn[:, 0]], torch.zeros(len(drawn))
            ),
        )  # fmt: skip

    @staticmethod
    def stage_context(
        model: Any,
        micro_batch_size: int | None = None,
        stage: int = 1,
        precision: str = "fp32",
        loss: AnyLoss = CLIP,
    ) -> StageContext:
        """What a stage that trains all of `model` begins with; pixels are taken as they are."""
        device = torch.device("cpu")
        autocast = autocast_of(precision, device)
        gradient_pass = GradientPass(
            module=model.module, device=device, normalise=lambda pixels: pixels,
            autocast=autocast, micro_batch_size=micro_batch_size,
        )  # fmt: skip
        return StageContext(
            model=model, trained=dict(model.module.named_parameters()),
            loss=contrastive_loss(loss), gradient=gradient_pass.backward, device=device,
            autocast=autocast,
            micro_batch_size=micro_batch_size, seed=0, stage=stage,
        )  # fmt: skip

    def copy(self, model: Model) -> Model:
        fresh = self.theta()
        fresh.module.load_state_dict(model.module.state_dict())
        return fresh

    def stage(
        self,
        start: Model,
        task: Task,
        preserve: Mapping[str, Any] | None = None,
        *,
        stage_inputs: StageInputs | None = None,
        pools: Mapping[str, Task] | None = None,
        stage: int = 1,
        fail_at: int | None = None,
        micro_batch_size: int | None = None,
        identity: str = "toy",
        precision: str = "fp32",
        average: AnyAverage | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
        select: Callable[[StageContext, Features], OnlineSelection] | None = None,
        batches: Any = None,
        execution: Mapping[str, Any] | None = None,
        train: Callable[[Model], None] | None = None,
        optimiser: Any = None,
    ) -> tuple[Model, dict[str, Tensor]]:
        """The trained model, and what the preservation left; `start` stays as it is. train: makes
        the model ready to be trained otherwise than as a whole."""
        declared = TypeAdapter(AnyPreservation).validate_python(preserve) if preserve else None

        def update(size: int, samples: int) -> Iterator[ToyBatch]:
            assert size <= 8
            for step in range(samples // size):
                whole, rows = task.batch(step, {}), (torch.arange(size) + step * size) % 8
                yield ToyBatch(whole.images[rows], whole.tokens[rows], {"update": size}).part(group)

        def pairs(samples: int) -> Iterator[ToyBatch]:
            whole = task.batch(0, {})
            for row in range(group.rank, min(samples, 8), group.world_size):
                yield ToyBatch(whole.images[[row]], whole.tokens[[row]], {"update": 1})

        model = self.copy(start)
        if train is not None:
            train(model)
        averages = optimiser is not None and optimiser.averages
        _, left, _ = loop.train(
            model,
            batches or ToyBatches(task, self.steps, pools or {}, fail_at, group),
            StageSpec(
                settings=TrainingSettings(
                    batch_size=8 * (1 + len(pools or {})),
                    budget=Budget(steps=self.steps),
                    optimiser=optimiser
                    or AdamW(
                        learning_rate=self.learning_rate, weight_decay=0, epsilon=self.epsilon
                    ),
                    precision=precision,
                    **({"schedule": {"name": "constant"}} if averages else {}),
                ),
                seed=0,
                stage=stage,
                execution=Execution(
                    device="cpu", micro_batch_size=micro_batch_size, **(execution or {})
                ),
                method=Finetune(average=average),
            ),
            TrainingRun(resume_folder=self.folder / identity, identity=identity, group=group),
            partial(
                begin, declared, replace(stage_inputs or StageInputs(), update=update, pairs=pairs)
            ),
            select,
        )
        model.module.eval()
        return model, left


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture
def task() -> Callable[[int], Task]:
    """Makes a task of its own for each number."""
    return Task


class Linear(nn.Module):
    """Two towers of one layer each, in float64, so that every gradient is quick and exact."""

    def __init__(self, *, has_bias: bool) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.visual = nn.Parameter(torch.randn(4, 3, generator=random, dtype=torch.float64))
        self.text = nn.Parameter(torch.randn(4, 3, generator=random, dtype=torch.float64))
        self.logit_scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        if has_bias:
            self.logit_bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def encode_image(self, images: Tensor) -> Tensor:
        return images @ self.visual

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens @ self.text


@pytest.fixture
def linear(toy: Toy) -> Callable[..., tuple[StageContext, ToyBatch]]:
    """Makes what a stage on linear towers begins with, and a batch of some pairs for it."""

    def make(
        size: int, micro_batch_size: int | None = None, loss: AnyLoss = CLIP
    ) -> tuple[StageContext, ToyBatch]:
        random = torch.Generator().manual_seed(3)
        images, texts = (torch.randn(size, 4, generator=random).double() for _ in "it")
        model = SimpleNamespace(module=Linear(has_bias=loss.name == "siglip"))
        stage_context = toy.stage_context(model, micro_batch_size, loss=loss)
        return stage_context, ToyBatch(images, texts, {"update": size})

    return make
