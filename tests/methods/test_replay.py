from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from fomo_dagster.methods.preservation.hooks import EmbeddedBatch, StageInputs
from fomo_dagster.methods.preservation.registry import AnyPreservation, begin

SETTINGS = {
    "er": {"name": "er", "alpha": 0.7},
    "der": {"name": "der", "alpha": 0.6},
    "derpp": {"name": "derpp", "alpha": 0.6, "beta": 0.4},
}
NAMES = pytest.mark.parametrize("name", list(SETTINGS))


def replay_features(images: Tensor, texts: Tensor) -> Any:
    """As a stage finds them: image features as long as the temperature, one caption a sample."""

    def features(drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert torch.equal(drawn[:, 1], torch.zeros(len(drawn)))
        return images[drawn[:, 0]], texts[drawn[:, 0]], torch.zeros(len(drawn))

    return features


def made(toy: Any, settings: dict[str, Any], size: int | None = None) -> tuple[Any, Any]:
    """A model in float64, and the preservation of its stage."""
    model = toy.theta()
    model.module.double()
    random = torch.Generator().manual_seed(3)
    images, texts = torch.randn(2, 8, 16, generator=random, dtype=torch.float64)
    declared = TypeAdapter(AnyPreservation).validate_python(settings)
    return model, begin(
        declared,
        StageInputs(replay_features=replay_features(images, texts)),
        toy.stage_context(model, size, stage=2),
    )


def batch_of(task: Any, *pools: str) -> Any:
    batch = task(1).batch(0, {pool: task(2 + n) for n, pool in enumerate(pools)})
    return type(batch)(batch.images.double(), batch.tokens, batch.counts)


def entropy(logits: Tensor) -> float:
    """Row by row, of the diagonal."""
    rows = [float(row.exp().sum().log() - row[i]) for i, row in enumerate(logits)]
    return sum(rows) / len(rows)


def contrastive(logits: Tensor) -> float:
    return (entropy(logits) + entropy(logits.T)) / 2


@NAMES
def test_the_rows_of_the_buffer_have_the_loss_that_the_formula_says(
    toy: Any, task: Any, name: str
) -> None:
    random = torch.Generator().manual_seed(5)
    features = torch.randn(2, 24, 16, generator=random, dtype=torch.float64)
    images, texts = features / features.norm(dim=-1, keepdim=True)
    scale = torch.tensor(1.7, dtype=torch.float64)
    batch = batch_of(task, "buffer", "pretraining")
    _, preservation = made(toy, SETTINGS[name])
    loss, added = preservation.loss(EmbeddedBatch(images, texts, scale, None, batch))
    stored = torch.randn(2, 8, 16, generator=random.manual_seed(3), dtype=torch.float64)

    other = [*range(8), *range(16, 24)]
    logits = float(scale.exp()) * images[8:16] @ texts[8:16].T
    old = [[float(stored[0, i] @ stored[1, j]) for j in range(8)] for i in range(8)]
    mse = sum((float(logits[i, j]) - old[i][j]) ** 2 for i in range(8) for j in range(8)) / 64
    expected = {
        "er": 0.7 * contrastive(logits),
        "der": 0.6 * mse,
        "derpp": 0.6 * mse + 0.4 * contrastive(logits),
    }
    learnt = float(scale.exp()) * images[other] @ texts[other].T
    assert float(loss) == pytest.approx(contrastive(learnt), rel=1e-6)
    assert float(added) == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.slow
@NAMES
def test_a_batch_without_buffer_is_trained_on_as_if_nothing_was_preserved(
    toy: Any, task: Any, name: str
) -> None:
    plain, _ = toy.stage(toy.theta(), task(1), pools={"pretraining": task(2)}, identity="plain")
    first, left = toy.stage(
        toy.theta(), task(1), SETTINGS[name], pools={"pretraining": task(2)}, identity=name
    )
    assert left == {}
    for parameter, tensor in plain.module.state_dict().items():
        assert torch.equal(tensor, first.module.state_dict()[parameter]), parameter


@NAMES
def test_micro_batches_give_the_gradient_of_the_whole_batch(toy: Any, task: Any, name: str) -> None:
    def gradient(size: int | None) -> list[Tensor]:
        model, preservation = made(toy, SETTINGS[name], size)
        toy.stage_context(model, size).gradient(batch_of(task, "buffer"), 0, preservation.loss)
        return [p.grad for p in model.module.parameters() if p.grad is not None]

    whole, pieces = gradient(None), gradient(3)
    assert any(bool(gradient.abs().max() > 1e-3) for gradient in whole)
    for one, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def stored_of(model: Any, task: Any) -> StageInputs:
    images = torch.nn.functional.normalize(model.module.encode_image(task.images), dim=-1)
    texts = torch.nn.functional.normalize(model.module.encode_text(task.tokens), dim=-1)
    return StageInputs(
        replay_features=replay_features(model.module.logit_scale.exp() * images, texts)
    )


@pytest.mark.slow
def test_a_replayed_task_is_forgotten_less_and_the_new_one_is_learnt(toy: Any, task: Any) -> None:
    first, _ = toy.stage(toy.theta(), task(1), identity="first")
    plain, _ = toy.stage(first, task(2), identity="plain")
    before, after = task(2).loss(first), task(2).loss(plain)
    stage_inputs = stored_of(first, task(1))
    for name in SETTINGS:
        held, _ = toy.stage(
            first, task(2), {"name": name}, stage_inputs=stage_inputs,
            pools={"buffer": task(1)}, stage=2, identity=name,
        )  # fmt: skip
        assert task(1).loss(held) < task(1).loss(plain), name
        assert task(2).loss(held) < after + 0.2 * (before - after), name


@pytest.mark.slow
@NAMES
def test_an_interrupted_stage_ends_bit_for_bit_as_a_whole_one(
    toy: Any, task: Any, name: str
) -> None:
    theta = toy.theta()

    def stage(identity: str, fail_at: int | None = None) -> Any:
        return toy.stage(
            theta, task(2), SETTINGS[name], stage_inputs=stored_of(theta, task(1)), stage=2,
            pools={"buffer": task(1)}, identity=identity, fail_at=fail_at,
        )[0]  # fmt: skip

    whole = stage("whole")
    with pytest.raises(OSError, match="disk"):
        stage("broken", fail_at=7)
    resumed = stage("broken")
    for parameter, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[parameter]), parameter
