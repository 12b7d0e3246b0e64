from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor
from torchvision.transforms import functional

from fomo_dagster.data.transforms import normalise
from fomo_dagster.methods.loss.contrastive import contrastive_loss
from fomo_dagster.methods.loss.declaration import ClipLoss
from fomo_dagster.methods.preservation.frozen import Frozen
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch, StageInputs
from fomo_dagster.methods.preservation.registry import AnyPreservation, begin
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones

TEACHER: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 9, "vocab_size": 12000, "layers": 1, "width": 16, "heads": 2},
}
BACKBONE = {"name": "teacher", "architecture": TEACHER, "pretraining": {"pool": {
    "name": "old", "datasets": ["old"]}}}  # fmt: skip


def numbers(texts: list[str], length: int, reverse: bool = False) -> Tensor:
    """A tokeniser of texts that are numbers; a teacher has them from right to left."""
    rows = [[int(word) for word in text.split()][:: -1 if reverse else 1] for text in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def teacher_of(seed: int = 1) -> Any:
    model = backbones.create(TEACHER, seed)
    select_trained(model.module, "all")
    with torch.no_grad():
        model.module.logit_scale.fill_(2.3)
    tokenize = partial(numbers, length=9, reverse=True)
    return replace(model, tokenize=tokenize, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))


def declared(**changes: Any) -> Any:
    settings = {"name": "transfer", "teacher": BACKBONE, **changes}
    return TypeAdapter(AnyPreservation).validate_python(settings)


def doubled(model: Any) -> Any:
    model.module.double()
    return model


def batch_of(task: Any) -> Any:
    batch = task(1).batch(0, {})
    return type(batch)(batch.images.double(), batch.tokens, batch.counts)


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("supervised", "of_start", "interpolation"), [(True, 2.2, "bicubic"), (False, 4.2, "bilinear")]
)
def test_every_image_is_learnt_from_the_model_that_knows_it_better(
    toy: Any, task: Any, supervised: bool, of_start: float, interpolation: str
) -> None:
    student, teacher, batch = doubled(toy.theta()), doubled(teacher_of()), batch_of(task)
    teacher = replace(teacher, interpolation=interpolation)
    with torch.no_grad():
        student.module.logit_scale.fill_(of_start)
    settings = declared(supervised=supervised, strength=0.7, temperature=3)
    made = begin(settings, StageInputs(reference=lambda: teacher), toy.stage_context(student))
    with torch.no_grad():
        start = [
            student.module.encode_image(batch.images),
            student.module.encode_text(batch.tokens),
        ]
        mean, std = torch.tensor([student.mean, student.std])[:, :, None, None].double()
        shown = torch.nn.functional.interpolate(
            batch.images * std + mean, (24, 24), mode=interpolation, antialias=True
        ).clamp(0, 1)
        mean, std = torch.tensor([teacher.mean, teacher.std])[:, :, None, None].double()
        taught = [
            teacher.module.encode_image((shown - mean) / std),
            teacher.module.encode_text(torch.nn.functional.pad(batch.tokens.flip(1), (0, 3))),
        ]
        # the student has moved on since
        for parameter in student.module.parameters():
            parameter.add_(0.03)
        images, texts = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(4)).double()
        images, texts = unit(images), unit(texts)
        scale = torch.tensor(1.9, dtype=torch.float64)
        loss, added = made.loss(EmbeddedBatch(images, texts, scale, None, batch))
    old = torch.tensor(of_start).double().exp() * unit(start[0]) @ unit(start[1]).T
    new = torch.tensor(2.3).double().exp() * unit(taught[0]) @ unit(taught[1]).T
    logits = scale.exp() * images @ texts.T
    expected, from_teacher = 0.0, 0
    for i in range(8):
        of_old, of_new = (z[i].exp() / z[i].exp().sum() for z in (old, new))
        if supervised:
            chosen = new if of_new[i] > of_old[i] else old
        else:
            chosen = new if max(of_new) > max(of_old) else old
        from_teacher += chosen is new
        p, q = ((z[i] / 3).exp() / (z[i] / 3).exp().sum() for z in (chosen, logits))
        expected += 0.7 * 9 * float((p * (p / q).log()).sum()) / 8
    assert 0 < from_teacher < 8
    assert float(added) == pytest.approx(expected, rel=1e-5)
    assert float(loss) == pytest.approx(float(contrastive_loss(ClipLoss())(images, texts, scale)))


def test_a_teacher_sees_pixels_in_its_own_size_and_colours(toy: Any) -> None:
    """Against Pillow's resizing, to the rounding of 8 bits."""
    student, teacher = toy.theta(), teacher_of()
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(64, 192, (5, 3, 16, 16), generator=random, dtype=torch.uint8)
    seen = []
    object.__setattr__(teacher.module, "encode_image", lambda x: seen.append(x) or x.flatten(1))
    Frozen(teacher, toy.stage_context(student, 2)).images(pixels)
    Frozen(teacher, toy.stage_context(student)).images(normalise(pixels, student.mean, student.std))
    assert [len(piece) for piece in seen] == [2, 2, 1, 5]
    resized = [
        functional.to_tensor(functional.to_pil_image(image).resize((24, 24), Image.BICUBIC))
        for image in pixels
    ]
    expected = functional.normalize(torch.stack(resized), teacher.mean, teacher.std)
    torch.testing.assert_close(torch.cat(seen[:3]), expected, rtol=0, atol=2 / 255 / 0.2)
    torch.testing.assert_close(torch.cat(seen[:3]), seen[3], rtol=0, atol=1e-4)


def test_micro_batches_give_the_gradient_of_the_whole_batch(toy: Any, task: Any) -> None:
    def gradient(size: int | None) -> list[Tensor]:
        student, teacher = doubled(toy.theta()), doubled(teacher_of())
        start = toy.stage_context(student, size)
        made = begin(declared(), StageInputs(reference=lambda: teacher), start)
        with torch.no_grad():
            student.module.logit_scale.add_(0.3)
        start.gradient(batch_of(task), 0, made.loss)
        return [p.grad for p in student.module.parameters() if p.grad is not None]

    whole, pieces = gradient(None), gradient(3)
    assert any(bool(gradient.abs().max() > 1e-3) for gradient in whole)
    for one, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.fixture
def knowing(toy: Any, task: Any) -> Any:
    """A teacher that learnt the second task."""
    teacher = teacher_of()
    optimiser = torch.optim.Adam(teacher.module.parameters(), lr=3e-3)
    frozen = Frozen(teacher, toy.stage_context(toy.theta()))
    images = frozen._as_seen(task(2).images)
    tokens = teacher.tokenize(task(2).batch(0, {}).texts)
    teacher.module.requires_grad_(True)
    for _ in range(60):
        features = teacher.module.encode_image(images), teacher.module.encode_text(tokens)
        loss = contrastive_loss(ClipLoss())(*map(unit, features), teacher.module.logit_scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5
    return teacher


@pytest.mark.slow
@pytest.mark.parametrize("supervised", [True, False])
def test_what_a_teacher_knows_is_taken_over_and_less_is_forgotten(
    toy: Any, task: Any, knowing: Any, supervised: bool
) -> None:
    first, _ = toy.stage(toy.theta(), task(1), identity="first")
    plain, _ = toy.stage(first, task(2), identity="plain")
    settings = {"name": "transfer", "teacher": BACKBONE, "supervised": supervised}
    taught, left = toy.stage(
        first,
        task(2),
        settings,
        stage_inputs=StageInputs(reference=lambda: knowing),
        identity="taught",
    )
    assert left == {}
    before, after = task(2).loss(first), task(2).loss(plain)
    assert task(2).loss(taught) < after + 0.2 * (before - after)
    assert task(1).loss(taught) < task(1).loss(plain)


@pytest.mark.slow
def test_an_interrupted_stage_ends_bit_for_bit_as_a_whole_one(toy: Any, task: Any) -> None:
    settings = {"name": "transfer", "teacher": BACKBONE}

    def stage(identity: str, fail_at: int | None = None) -> Any:
        return toy.stage(
            toy.theta(), task(1), settings, stage_inputs=StageInputs(reference=teacher_of),
            identity=identity, fail_at=fail_at,
        )[0]  # fmt: skip

    whole = stage("whole")
    with pytest.raises(OSError, match="disk"):
        stage("broken", fail_at=7)
    resumed = stage("broken")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
