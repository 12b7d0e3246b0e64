from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from fomo_dagster.data.transforms import normalise
from fomo_dagster.methods.loss.likelihood import Likelihood, Sigmoid, Softmax
from fomo_dagster.methods.preservation.frozen import Frozen
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch, StageHooks, StageInputs
from fomo_dagster.methods.preservation.registry import AnyPreservation, begin

Matrix = npt.NDArray[np.float64]
LWF = {"name": "lwf", "strength": 0.7, "temperature": 3}
ZSCL = {"name": "zscl", "strength": 0.7, "temperature": 3, "l2": 0}


def doubled(toy: Any, nudge: float) -> Any:
    """θ₀ in float64, moved by a little noise, with a logit scale of its own."""
    model = toy.theta()
    model.module.double()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.module.parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.add_(nudge * noise)
        model.module.logit_scale.fill_(2 + nudge)
    return model


def distilling(toy: Any, settings: dict[str, Any], size: int | None = None) -> tuple[Any, Any, Any]:
    student, teacher = doubled(toy, 0.05), doubled(toy, 0.02)
    declared = TypeAdapter(AnyPreservation).validate_python(settings)
    made = begin(declared, StageInputs(reference=lambda: teacher), toy.stage_context(student, size))
    return student, teacher, made


def features(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    images = model.module.encode_image(batch.images)
    texts = model.module.encode_text(batch.tokens)
    return images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True)


def batch_of(task: Any) -> Any:
    batch = task(1).batch(0, {"buffer": task(2), "pretraining": task(3)})
    return type(batch)(batch.images.double(), batch.tokens, batch.counts)


def softmax(logits: Matrix) -> Matrix:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def kl(teacher: Matrix, student: Matrix, temperature: float) -> float:
    """T² · the mean over rows, one row after another."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    rows = [sum(p[i, j] * np.log(p[i, j] / q[i, j]) for j in range(8)) for i in range(8)]
    return temperature**2 * float(np.mean(rows))


def entropy(logits: Matrix) -> float:
    diagonal = [-np.log(row[i]) for i, row in enumerate(softmax(logits))]
    return float(np.mean(diagonal))


def contrastive(images: Matrix, texts: Matrix, scale: float) -> float:
    logits = np.exp(scale) * images @ texts.T
    return (entropy(logits) + entropy(logits.T)) / 2


def arrays(toy: Any, task: Any, settings: dict[str, Any]) -> tuple[tuple[float, float], Any, Any]:
    """What the engine computes, and the features of student and teacher that it is of."""
    student, teacher, made = distilling(toy, settings)
    batch = batch_of(task)
    with torch.no_grad():
        of_student, of_teacher = features(student, batch), features(teacher, batch)
        loss, added = made.loss(EmbeddedBatch(*of_student, student.module.logit_scale, None, batch))
    as_arrays = [tuple(f.numpy() for f in pair) for pair in (of_student, of_teacher)]
    return (float(loss), float(added)), *as_arrays


def test_lwf_is_what_its_formula_says(toy: Any, task: Any) -> None:
    found, (images, texts), (old_images, old_texts) = arrays(toy, task, LWF)
    new = slice(0, 8)
    teacher = np.exp(2.02) * old_images[new] @ old_texts[new].T
    student = np.exp(2.05) * images[new] @ texts[new].T
    assert found[0] == pytest.approx(contrastive(images, texts, 2.05), rel=1e-9)
    assert found[1] == pytest.approx(0.7 * kl(teacher, student, 3), rel=1e-9)
    assert found[1] > 1e-3


def test_zscl_is_what_its_formula_says(toy: Any, task: Any) -> None:
    found, (images, texts), (old_images, old_texts) = arrays(toy, task, ZSCL)
    learnt, rows = slice(0, 16), slice(16, 24)
    scale = np.exp(2.02)
    teacher = scale * old_images[rows] @ old_texts[rows].T
    by_image = kl(teacher, scale * images[rows] @ old_texts[rows].T, 3)
    by_text = kl(teacher.T, scale * texts[rows] @ old_images[rows].T, 3)
    assert found[0] == pytest.approx(contrastive(images[learnt], texts[learnt], 2.05), rel=1e-9)
    assert found[1] == pytest.approx(0.7 * (by_image + by_text), rel=1e-9)
    assert min(by_image, by_text) > 1e-3


@pytest.mark.parametrize("likelihood", [Softmax(), Sigmoid()], ids=["clip", "siglip"])
def test_nothing_is_added_where_nothing_was_lost(likelihood: Likelihood) -> None:
    logits = 5 * torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(likelihood.divergences(logits, logits, 2.0), torch.zeros(4))
    assert bool((likelihood.divergences(logits, logits.flip(0), 2.0) > 0).all())


@pytest.mark.parametrize("settings", [LWF, ZSCL], ids=["lwf", "zscl"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    toy: Any, task: Any, settings: dict[str, Any]
) -> None:
    def gradient(size: int | None) -> tuple[Tensor, list[Tensor]]:
        student, _, made = distilling(toy, settings, size)
        parts = toy.stage_context(student, size).gradient(batch_of(task), 0, made.loss)
        return parts, [p.grad for p in student.module.parameters() if p.grad is not None]

    (whole, gradients), (pieces, of_pieces) = gradient(None), gradient(5)
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-12)
    assert any(bool(gradient.abs().max() > 1e-3) for gradient in gradients)
    for one, other in zip(of_pieces, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


def test_a_frozen_model_sees_the_pixels_as_the_trained_one_does(toy: Any, task: Any) -> None:
    model = toy.theta()
    frozen = Frozen(model, toy.stage_context(toy.theta(), 3))
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 16, 16), generator=random, dtype=torch.uint8)
    seen = normalise(pixels, model.mean, model.std)
    torch.testing.assert_close(frozen.images(pixels), frozen.images(seen))
    assert not torch.allclose(frozen.images(pixels), frozen.images(pixels.float()), atol=1e-2)
    assert not frozen.images(pixels).requires_grad
    assert not any(p.requires_grad or module.training for module in model.module.modules()
                   for p in module.parameters())  # fmt: skip


@pytest.mark.slow
def test_a_teacher_makes_forget_less_and_the_new_task_is_learnt(toy: Any, task: Any) -> None:
    """LwF on the new pairs alone; ZSCL with the old ones as reference."""
    first, _ = toy.stage(toy.theta(), task(1), identity="first")
    stage_inputs = StageInputs(reference=lambda: toy.copy(first))
    plain, _ = toy.stage(first, task(2), identity="plain")
    before, after = task(2).loss(first), task(2).loss(plain)
    for settings, pools in (
        ({"name": "lwf", "strength": 0.3}, None),
        ({"name": "zscl", "l2": 0.01}, {"pretraining": task(1)}),
    ):
        held, left = toy.stage(
            first,
            task(2),
            settings,
            stage_inputs=stage_inputs,
            pools=pools,
            identity=settings["name"],
        )
        assert left == {}
        assert task(1).loss(held) < task(1).loss(plain), settings
        assert task(2).loss(held) < after + 0.2 * (before - after), settings


def test_zscl_pulls_to_the_start_as_strongly_as_it_is_told(toy: Any) -> None:
    settings = ZSCL | {"l2": 0.4}
    student, _, made = distilling(toy, settings)
    name, moved = next(iter(student.module.named_parameters()))
    with torch.no_grad():
        moved.add_(0.5)
    penalty = made.add_penalty_gradient()
    assert float(penalty) == pytest.approx(0.4 * 0.25 * moved.numel(), rel=1e-9)
    for other, parameter in student.module.named_parameters():
        expected = 2 * 0.4 * 0.5 if other == name else 0.0
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, expected))
    assert StageHooks.add_penalty_gradient(made) is None
    assert distilling(toy, ZSCL)[2].add_penalty_gradient() is None


@pytest.mark.slow
@pytest.mark.parametrize("settings", [LWF, ZSCL | {"l2": 0.1}], ids=["lwf", "zscl"])
def test_an_interrupted_stage_ends_bit_for_bit_as_a_whole_one(
    toy: Any, task: Any, settings: dict[str, Any]
) -> None:
    theta, pools = toy.theta(), {"pretraining": task(3)}
    stage_inputs = StageInputs(reference=lambda: toy.copy(theta))

    def stage(identity: str, fail_at: int | None = None) -> Any:
        return toy.stage(
            theta, task(1), settings, stage_inputs=stage_inputs, pools=pools, identity=identity,
            fail_at=fail_at,
        )[0]  # fmt: skip

    whole = stage("whole")
    with pytest.raises(OSError, match="disk"):
        stage("broken", fail_at=7)
    resumed = stage("broken")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
