from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget, TrainingSettings
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.loss.contrastive import contrastive_loss
from fomo_dagster.methods.loss.declaration import ClipLoss
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch
from fomo_dagster.methods.registry import AnyMethod
from fomo_dagster.models import backbones
from fomo_dagster.optimisation.optimisers import AdamW
from fomo_dagster.training import loop
from fomo_dagster.training.gradcache import GradientPass
from fomo_dagster.training.spec import StageSpec, TrainingRun

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 12000, "layers": 1, "width": 24, "heads": 2},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "scale": 0.5},
    "dora": {"rank": 4},
    "loha": {"rank": 4},
    "lokr": {"rank": 4},
    "vera": {"rank": 4},
    "hra": {"rank": 4},
    "oft": {"block_size": 4},
    "ia3": {},
}
IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(1, 11999, (8, 6), generator=torch.Generator().manual_seed(0))


def method(name: str, **changes: Any) -> Any:
    return TypeAdapter(AnyMethod).validate_python({"name": name, **FAMILIES[name], **changes})


@dataclass(frozen=True)
class Batch:
    images: Tensor
    tokens: Tensor
    counts: dict[str, int]


def contrastive(embedded: EmbeddedBatch) -> tuple[Tensor, None]:
    return contrastive_loss(ClipLoss())(embedded.images, embedded.texts, embedded.logit_scale), None


def features(module: Any) -> Tensor:
    with torch.no_grad():
        return torch.cat([module.encode_image(IMAGES), module.encode_text(TOKENS)])


def disturb(module: Any, seed: int = 1) -> None:
    """As training would: every adapter moves."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=random)


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_begins_as_the_model_and_is_merged_into_what_it_computed(
    name: str, custom_text: bool
) -> None:
    module = backbones.create(SMALL | {"custom_text": custom_text}, seed=0).module
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    expected = features(module)
    random = torch.get_rng_state()
    adapted = add_adapters(module, method(name), seed=3)
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(features(module), expected, rtol=0, atol=2e-6)
    trained = {key for key, value in module.named_parameters() if value.requires_grad}
    assert trained
    assert trained <= adapted.state().keys()
    for tower in ("visual.", "text." if custom_text else "transformer."):
        for layer in ("query", "key", "value", "out_proj", "c_fc", "c_proj"):
            assert any(key.startswith(tower) and f".{layer}." in key for key in trained)
    disturb(module)
    learnt = features(module)
    assert float((learnt - expected).abs().max()) > 1e-3
    adapted.merge()
    torch.testing.assert_close(features(module), learnt, rtol=0, atol=1e-5)
    after = module.state_dict()
    assert {key: value.shape for key, value in after.items()} == {
        key: value.shape for key, value in before.items()
    }
    kept = {key for key in before if torch.equal(before[key], after[key])}
    assert {"logit_scale", "visual.proj", "visual.class_embedding", "visual.ln_pre.bias"} <= kept


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_that_are_stored_go_on_where_they_were(name: str, tmp_path: Path) -> None:
    first = add_adapters(backbones.create(SMALL, seed=0).module, method(name), seed=3)
    disturb(first.module)
    backbones.save(first.state(), tmp_path / "adapters.safetensors")
    second = add_adapters(backbones.create(SMALL, seed=0).module, method(name), seed=4)
    assert not torch.equal(features(first.module), features(second.module))
    second.load(load_file(tmp_path / "adapters.safetensors"))
    assert torch.equal(features(first.module), features(second.module))


def test_adapters_of_another_kind_are_refused() -> None:
    one = add_adapters(backbones.create(SMALL, seed=0).module, method("lora"), seed=0)
    for other, message in (
        ("dora", "only one of the two has"),
        ("lora", r"is \(2, 16\), not \(4, 16\)"),
    ):
        changed = method(other, rank=2)
        two = add_adapters(backbones.create(SMALL, seed=0).module, changed, seed=0)
        with pytest.raises(DataError, match=message):
            two.load(one.state())


@pytest.mark.parametrize("name", ["lora", "dora", "vera", "loha", "lokr"])
def test_the_seed_decides_what_is_random_at_first(name: str) -> None:
    states = [
        add_adapters(backbones.create(SMALL, seed=0).module, method(name), seed).state()
        for seed in (3, 3, 4)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_lora_adds_the_scaled_product_to_each_projection() -> None:
    module = backbones.create(SMALL, seed=0).module
    before = {key: tensor.double() for key, tensor in module.state_dict().items()}
    adapted = add_adapters(module, method("lora"), seed=3)
    disturb(module)
    state = {key: tensor.double() for key, tensor in adapted.state().items()}
    adapted.merge()
    block = "visual.transformer.resblocks.0"

    def change(layer: str) -> Tensor:
        name = f"{block}.{layer}.lora_"
        return 0.5 * state[f"{name}B.default.weight"] @ state[f"{name}A.default.weight"]

    expected = {
        "attn.in_proj_weight": torch.cat([change(f"attn.{n}") for n in ("query", "key", "value")]),
        "attn.out_proj.weight": change("attn.out_proj"),
        "mlp.c_fc.weight": change("mlp.c_fc"),
        "mlp.c_proj.weight": change("mlp.c_proj"),
    }
    after = module.state_dict()
    for name, delta in expected.items():
        key = f"{block}.{name}"
        torch.testing.assert_close(after[key].double(), before[key] + delta, rtol=0, atol=1e-6)


def test_targets_can_be_of_one_tower_and_the_other_then_rests() -> None:
    module = backbones.create(SMALL, seed=0).module
    adapted = add_adapters(module, method("lora", targets=["visual.*.query"]), seed=0)
    assert len(adapted.state()) == 2
    assert all(name.startswith("visual.") for name in adapted.state())
    assert not module.transformer.training
    assert module.visual.training


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lora", {"targets": ["quary"]}, "targets has 'quary'.*did you mean 'query'"),
        ("lora", {"targets": ["visual.*.quary"]}, r"targets has 'visual.*.quary'.*\.query'"),
        ("lora", {"rank": 17}, r"rank is 17, above the width of visual\..*, which is 16"),
        ("oft", {"block_size": 5}, "block_size is 5, which does not divide the 16 inputs of"),
    ],
)
def test_what_the_model_has_no_place_for_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        add_adapters(backbones.create(SMALL, seed=0).module, method(name, **changes), seed=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_micro_batches_have_the_gradient_of_the_whole_batch(name: str) -> None:
    module = backbones.create(SMALL, seed=0).module
    add_adapters(module, method(name), seed=3)
    disturb(module)
    gradients = []
    for size in (None, 3):
        module.zero_grad()
        GradientPass(
            module=module, device=torch.device("cpu"), normalise=lambda pixels: pixels,
            autocast=nullcontext, micro_batch_size=size,
        ).backward(Batch(IMAGES, TOKENS, {"update": 8}), 7, contrastive)  # fmt: skip
        gradients.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    whole, pieces = gradients
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    assert whole.keys() == pieces.keys() == trained
    for key, expected in whole.items():
        torch.testing.assert_close(pieces[key], expected, rtol=1e-4, atol=1e-4)


class Batches:
    steps = 4

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at

    def iterate(self, start: int) -> Iterator[Batch]:
        for step in range(start, self.steps):
            if step == self.fail_at:
                raise OSError("the disk is gone")
            yield Batch(IMAGES + step, (TOKENS + step) % 11999, {"update": 8})


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_an_interrupted_training_ends_with_the_same_adapters_bit_for_bit(
    name: str, tmp_path: Path
) -> None:
    """In micro-batches, under autocast, and with dropout where the family has it."""
    chosen = method(name)
    if "dropout" in type(chosen).model_fields:
        chosen = method(name, dropout=0.25)

    def train(folder: str, batches: Batches) -> dict[str, Tensor]:
        model = backbones.create(SMALL, seed=0)
        adapted = add_adapters(model.module, chosen, seed=3)
        loop.train(
            model, batches,
            StageSpec(
                settings=TrainingSettings(
                    batch_size=8, budget=Budget(steps=4), optimiser=AdamW(learning_rate=1e-2),
                    precision="bf16",
                ),
                seed=0, stage=1, execution=Execution(device="cpu", micro_batch_size=3),
            ),
            TrainingRun(resume_folder=tmp_path / folder, identity="recipe"),
        )  # fmt: skip
        return dict(model.module.state_dict()) | adapted.state()

    whole = train("whole", Batches())
    with pytest.raises(OSError, match="disk"):
        train("broken", Batches(fail_at=2))
    resumed = train("broken", Batches())
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    model = backbones.create(SMALL, seed=0)
    adapted = add_adapters(model.module, chosen, seed=3)
    start = dict(model.module.state_dict())
    moved = {key for key in start if not torch.equal(start[key], whole[key])}
    assert moved
    assert moved <= adapted.state().keys()
