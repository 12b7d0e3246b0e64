"""What methods keep of a model that SigLIP's loss trains, pair by pair in plain float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.declaration import SiglipLoss
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch, StageInputs
from fomo_dagster.methods.preservation.registry import AnyPreservation, begin
from fomo_dagster.models import backbones

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 6, "vocab_size": 12000, "layers": 1, "width": 32, "heads": 2},
}
TEACHER = {"name": "teacher", "architecture": ARCHITECTURE, "pretrained": "none"}
T = 3.0
Rows = list[list[float]]


def model_of(seed: int, scale: float, bias: float | None) -> Any:
    changes = {} if bias is None else {"init_logit_bias": bias}
    model = backbones.create(ARCHITECTURE | changes, seed)
    model.module.double()
    with torch.no_grad():
        model.module.logit_scale.fill_(scale)
    return model


@torch.no_grad()
def features(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    images = model.module.encode_image(batch.images)
    texts = model.module.encode_text(batch.tokens)
    return images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True)


def logits(images: Tensor, texts: Tensor, scale: float, bias: float) -> Rows:
    return [[math.exp(scale) * float(i @ t) + bias for t in texts] for i in images]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def of_row(teacher: list[float], student: list[float]) -> float:
    """T² · the sum over pairs of what two coins differ in."""
    total = 0.0
    for theirs, ours in zip(teacher, student, strict=True):
        p, q = sigmoid(theirs / T), sigmoid(ours / T)
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return T * T * total


def kl(teacher: Rows, student: Rows) -> float:
    return sum(map(of_row, teacher, student)) / len(teacher)


def transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def siglip(rows: Rows) -> float:
    losses = [
        -math.log(sigmoid(logit if i == j else -logit))
        for i, row in enumerate(rows) for j, logit in enumerate(row)
    ]  # fmt: skip
    return sum(losses) / len(rows)


@pytest.fixture
def batch(task: Any) -> Any:
    made = task(1).batch(0, {"buffer": task(2), "pretraining": task(3)})
    return type(made)(made.images.double(), made.tokens, made.counts)


def computed(
    toy: Any, batch: Any, settings: dict[str, Any], student: Any, stage_inputs: StageInputs
) -> tuple[float, float]:
    declared = TypeAdapter(AnyPreservation).validate_python(settings)
    made = begin(declared, stage_inputs, toy.stage_context(student, loss=SiglipLoss(name="siglip")))
    with torch.no_grad():
        own = student.module.logit_scale, student.module.logit_bias
        loss, added = made.loss(EmbeddedBatch(*features(student, batch), *own, batch))
    return float(loss), float(added)


def test_lwf_keeps_what_the_teacher_says_of_each_pair(toy: Any, batch: Any) -> None:
    student, teacher = model_of(0, 1.5, -2.0), model_of(1, 1.8, -3.0)
    settings = {"name": "lwf", "strength": 0.7, "temperature": T}
    loss, added = computed(toy, batch, settings, student, StageInputs(reference=lambda: teacher))
    new = slice(0, 8)
    ours, theirs = (
        logits(*(part[new] for part in features(model, batch)), scale, bias)
        for model, scale, bias in ((student, 1.5, -2.0), (teacher, 1.8, -3.0))
    )
    assert loss == pytest.approx(siglip(logits(*features(student, batch), 1.5, -2.0)), rel=1e-9)
    assert added == pytest.approx(0.7 * kl(theirs, ours), rel=1e-6)
    assert added > 0.01


def test_zscl_keeps_what_the_teacher_says_of_each_reference_pair(toy: Any, batch: Any) -> None:
    student, teacher = model_of(0, 1.5, -2.0), model_of(1, 1.8, -3.0)
    settings = {"name": "zscl", "strength": 0.7, "temperature": T, "l2": 0}
    loss, added = computed(toy, batch, settings, student, StageInputs(reference=lambda: teacher))
    rows, learnt = slice(16, 24), slice(0, 16)
    images, texts = features(student, batch)
    old_images, old_texts = (part[rows] for part in features(teacher, batch))
    theirs = logits(old_images, old_texts, 1.8, -3.0)
    by_image = kl(theirs, logits(images[rows], old_texts, 1.8, -3.0))
    by_text = kl(transposed(theirs), logits(texts[rows], old_images, 1.8, -3.0))
    assert loss == pytest.approx(siglip(logits(images[learnt], texts[learnt], 1.5, -2.0)), rel=1e-9)
    assert added == pytest.approx(0.7 * (by_image + by_text), rel=1e-6)
    assert min(by_image, by_text) > 0.01


@pytest.mark.parametrize(("name", "beta"), [("der", 0.0), ("derpp", 0.4)])
def test_stored_logits_have_the_bias_of_the_model_that_left_them(
    toy: Any, batch: Any, name: str, beta: float
) -> None:
    student = model_of(0, 1.5, -2.0)
    random = torch.Generator().manual_seed(5)
    stored = torch.randn(2, 8, 16, generator=random, dtype=torch.float64)
    biases = torch.tensor([-3.0] * 5 + [-4.0] * 3)
    stage_inputs = StageInputs(
        replay_features=lambda drawn: (*stored[:, drawn[:, 0]], biases[drawn[:, 0]])
    )
    settings = {"name": name, "alpha": 0.6} | ({"beta": beta} if beta else {})
    loss, added = computed(toy, batch, settings, student, stage_inputs)
    images, texts = features(student, batch)
    replayed, other = slice(8, 16), [*range(8), *range(16, 24)]
    ours = logits(images[replayed], texts[replayed], 1.5, -2.0)
    squares = [
        (ours[i][j] - float(stored[0, i] @ stored[1, j]) - float(biases[i])) ** 2
        for i in range(8) for j in range(8)
    ]  # fmt: skip
    assert loss == pytest.approx(siglip(logits(images[other], texts[other], 1.5, -2.0)), rel=1e-9)
    assert added == pytest.approx(0.6 * sum(squares) / 64 + beta * siglip(ours), rel=1e-6)


@pytest.mark.parametrize("supervised", [True, False])
def test_transfer_is_from_the_model_that_is_surer_of_a_pair(
    toy: Any, batch: Any, supervised: bool
) -> None:
    start, student, teacher = model_of(0, 1.5, -2.0), model_of(0, 1.5, -2.0), model_of(1, 1.7, -2.2)
    settings = {
        "name": "transfer", "teacher": TEACHER, "supervised": supervised, "strength": 0.7,
        "temperature": T,
    }  # fmt: skip
    with torch.no_grad():
        declared = TypeAdapter(AnyPreservation).validate_python(settings)
        stage_context = toy.stage_context(student, loss=SiglipLoss(name="siglip"))
        numbers = replace(
            teacher, tokenize=lambda texts: torch.tensor([[*map(int, t.split())] for t in texts])
        )
        made = begin(declared, StageInputs(reference=lambda: numbers), stage_context)
        for parameter in student.module.parameters():
            parameter.add_(0.03)
        own = student.module.logit_scale, student.module.logit_bias
        _, added = made.loss(EmbeddedBatch(*features(student, batch), *own, batch))
    ours = logits(*features(student, batch), 1.53, -1.97)
    old = logits(*features(start, batch), 1.5, -2.0)
    new = logits(*features(teacher, batch), 1.7, -2.2)
    total, from_teacher = 0.0, 0
    for i in range(24):
        surer = (new[i][i] > old[i][i]) if supervised else (max(new[i]) > max(old[i]))
        from_teacher += surer
        total += of_row(new[i] if surer else old[i], ours[i]) / 24
    assert 0 < from_teacher < 24
    assert float(added) == pytest.approx(0.7 * total, rel=1e-6)


def test_a_teacher_without_a_bias_is_refused(toy: Any) -> None:
    declared = TypeAdapter(AnyPreservation).validate_python(
        {"name": "transfer", "teacher": TEACHER}
    )
    stage_context = toy.stage_context(model_of(0, 1.5, -2.0), loss=SiglipLoss(name="siglip"))
    stage_inputs = StageInputs(reference=lambda: model_of(1, 1.7, None))
    with pytest.raises(InputError, match=r"method\.preserve\.teacher has no logit_bias"):
        begin(declared, stage_inputs, stage_context)
