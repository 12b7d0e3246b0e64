"""Processes that share a model's weights out train what one does that has them all."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.testing import assert_close

from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget, TrainingSettings
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.averaging.declaration import ExponentialAverage
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.optimisation.optimisers import AdamW, AdEMAMix, ScheduleFreeAdamW
from fomo_dagster.optimisation.schedules import WarmupStableDecay
from fomo_dagster.training import loop
from fomo_dagster.training.sharding import blocks_of
from fomo_dagster.training.spec import StageSpec, TrainingRun
from tests.methods.conftest import ToyBatches

pytestmark = pytest.mark.slow

STEPS = 3
TEACHER = {"name": "teacher", "architecture": "ViT-B-32", "pretrained": "openai"}  # never fetched
# Name → how a training is declared beside plain one, and by how many processes.
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (2, {}),
    "in micro-batches, recomputed": (
        3, {"micro_batch_size": 1, "execution": {"gradient_checkpointing": True}},
    ),
    "bf16": (2, {"precision": "bf16"}),
    "fp16": (2, {"precision": "fp16"}),
    "lora": (2, {"train": lambda m: add_adapters(m.module, Scaled(name="lora", rank=2), 0)}),
    "one tower, l2": (
        2,
        {
            "train": lambda model: select_trained(model.module, "locked_image"),
            "preserve": {"name": "l2", "strength": 0.1},
        },
    ),
    "ademamix": (
        2,
        {"optimiser": AdEMAMix(name="ademamix", learning_rate=3e-3, weight_decay=0, epsilon=1e-4)},
    ),
    "schedule_free_adamw": (
        2,
        {
            "optimiser": ScheduleFreeAdamW(
                name="schedule_free_adamw", learning_rate=3e-3, weight_decay=0, epsilon=1e-4
            )
        },
    ),
    "gnsp": (3, {"preserve": {"name": "gnsp", "samples": 8, "batch_size": 4}}),
    "spu": (3, {"preserve": {"name": "spu", "samples": 8, "batch_size": 4}}),
    "ewc": (3, {"preserve": {"name": "ewc", "strength": 10, "samples": 8, "batch_size": 4}}),
    "si, averaged": (
        2,
        {
            "preserve": {"name": "si", "strength": 1},
            "average": ExponentialAverage(name="exponential", decay=0.5),
        },
    ),
    "lwf": (2, {"preserve": {"name": "lwf"}}),
    "derpp": (2, {"preserve": {"name": "derpp"}}),
    "zscl": (2, {"preserve": {"name": "zscl", "l2": 0.1}}),
    "transfer": (2, {"preserve": {"name": "transfer", "teacher": TEACHER}}),
}  # fmt: skip
IN_LOWER_PRECISION = ("bf16", "fp16")


@pytest.fixture(autouse=True)
def few_steps(toy: Any) -> None:
    object.__setattr__(toy, "steps", STEPS)
    object.__setattr__(toy, "epsilon", 1e-4)


def declared(toy: Any, task: Any, way: str) -> dict[str, Any]:
    settings = {"execution": {}, **WAYS[way][1]}
    settings["stage_inputs"] = toy.second_stage(settings.get("preserve"))
    pools = {"zscl": ["pretraining"], "lwf": ["pretraining"], "derpp": ["buffer"]}.get(way, [])
    settings["pools"] = {pool: task(number) for number, pool in enumerate(pools, start=10)}
    return settings


def sharded(toy: Any, start: Any, task: Any, group: ProcessGroup, **settings: Any) -> Any:
    execution = {"processes": group.world_size, "sharded": True, **settings.pop("execution", {})}
    model, left = toy.stage(start, task, execution=execution, group=group, **settings)
    return model.module.state_dict(), left


@pytest.mark.parametrize("way", WAYS)
def test_processes_that_share_weights_out_train_what_one_does(
    toy: Any, task: Any, together: Any, way: str
) -> None:
    """To 1e-5 in fp32; in lower precision to its rounding."""
    start, settings = toy.theta(), declared(toy, task, way)
    expected, left = toy.stage(start, task(1), identity="alone", **settings)
    (weights, also_left), *others = together(
        WAYS[way][0], lambda group: sharded(toy, start, task(1), group, **settings)
    )
    tolerance = 1e-3 if way in IN_LOWER_PRECISION else 1e-5
    assert_close(weights, expected.module.state_dict(), rtol=0, atol=tolerance)
    scale = max([1.0, *(float(tensor.abs().max()) for tensor in left.values())])
    assert_close(also_left, left, rtol=0, atol=1e-4 * scale)
    begun = toy.copy(start)
    settings.get("train", lambda model: None)(begun)
    unchanged = begun.module.state_dict()
    assert any(not torch.equal(tensor, unchanged[name]) for name, tensor in weights.items())
    for own, _ in others:  # the first alone has what was trained
        assert all(torch.equal(tensor, unchanged[name]) for name, tensor in own.items())


def test_weights_before_an_anneal_are_whole_at_the_first_process(
    toy: Any, task: Any, together: Any
) -> None:
    def left_by(group: ProcessGroup, *, is_sharded: bool) -> Any:
        spec = StageSpec(
            settings=TrainingSettings(
                batch_size=8,
                budget=Budget(steps=STEPS),
                optimiser=AdamW(learning_rate=3e-3, weight_decay=0, epsilon=1e-4),
                schedule=WarmupStableDecay(name="wsd", warmup=0, cooldown=1),
            ),
            seed=0,
            stage=1,
            execution=Execution(device="cpu", processes=group.world_size, sharded=is_sharded),
            method=Finetune(start_from="unannealed"),
        )
        run = TrainingRun(resume_folder=toy.folder / f"{is_sharded}", identity="one", group=group)
        batches = ToyBatches(task(1), STEPS, group=group)
        return loop.train(toy.theta(), batches, spec, run).unannealed

    expected = left_by(SINGLE_PROCESS, is_sharded=False)
    found, _ = together(2, lambda group: left_by(group, is_sharded=True))
    assert found.keys() == expected.keys()
    assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_gradient_that_overflows_in_one_process_has_all_skip_the_step(
    toy: Any, task: Any, together: Any, monkeypatch: Any
) -> None:
    """In fp16, at the second step: at the first, all overflow by themselves."""
    made, start = loop.build_learner, toy.theta()

    def overflowing(model: Any, spec: Any, placement: Any, *further: Any) -> Any:
        learner, group = made(model, spec, placement, *further), placement.group
        gradient, calls = learner._gradient, []

        def second_is_infinite(*given: Any) -> Tensor:
            parts: Tensor = gradient(*given)
            calls.append(given)
            if len(calls) == 2 and group.rank == group.world_size - 1:
                learner._trained["visual.conv1.weight"].grad.fill_(torch.inf)
            return parts

        learner._gradient = second_is_infinite
        return learner

    monkeypatch.setattr(loop, "build_learner", overflowing)
    optimiser = AdamW(learning_rate=3e-3, weight_decay=0, epsilon=1e-4, clip_norm=None)
    settings = {"precision": "fp16", "optimiser": optimiser}
    expected, _ = toy.stage(start, task(1), identity="alone", **settings)
    (weights, _), _ = together(2, lambda group: sharded(toy, start, task(1), group, **settings))
    assert_close(weights, expected.module.state_dict(), rtol=0, atol=1e-3)


def test_selection_sees_the_features_of_weights_that_are_shared_out(
    toy: Any, task: Any, together: Any
) -> None:
    """Of 8 rows, 5 at once and in micro-batches of 2, so that processes have pieces of none."""
    start = toy.theta()

    def seen(features: Any, group: ProcessGroup) -> tuple[Tensor, Tensor]:
        part = task(1).batch(0, {}).part(group)
        found: tuple[Tensor, Tensor] = features(part.images, part.tokens, 5)
        return found

    def work(group: ProcessGroup) -> Any:
        found = []

        def select(stage_context: Any, features: Any) -> Any:
            found.append(seen(features, group))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            sharded(toy, start, task(1), group, micro_batch_size=2, select=select)
        return found[0]

    of_three = together(3, work)
    gradient_pass = toy.stage_context(toy.copy(start)).gradient.__self__
    for whole, parts in zip(
        seen(gradient_pass.encoded, SINGLE_PROCESS), zip(*of_three, strict=True), strict=True
    ):
        for rank, part in enumerate(parts):
            assert_close(part, whole[rank::3], rtol=1e-5, atol=1e-6)


def test_a_process_holds_its_rows_alone_of_weights_gradients_and_moments(
    toy: Any, task: Any, together: Any, monkeypatch: Any
) -> None:
    """Counted in bytes, over parameters, gradients and optimiser state."""
    learners: list[Any] = []
    made = loop.build_learner

    def noted(*arguments: Any) -> Any:
        learners.append(made(*arguments))
        return learners[-1]

    monkeypatch.setattr(loop, "build_learner", noted)

    def work(group: ProcessGroup) -> dict[str, int]:
        sharded(toy, toy.theta(), task(1), group)
        learner = learners[-1]
        held = learner._trained
        for name, parameter in learner._module.named_parameters():
            own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            assert own.data_ptr() == held[name].data_ptr()  # no copy beside
            assert parameter is held[name] or parameter.grad is None
        moments = [
            value
            for state in learner._optimiser.state_dict()["state"].values()
            for name, value in state.items()
            if name != "step"
        ]
        assert all(value.untyped_storage().nbytes() == value.nbytes for value in moments)
        gradients = [parameter.grad for parameter in held.values()]
        counted = {"parameters": held.values(), "gradients": gradients, "moments": moments}
        return {what: sum(t.nbytes for t in tensors) for what, tensors in counted.items()}

    first, second = together(2, work)
    parameters = dict(toy.theta().module.named_parameters())
    of_scale = parameters.pop("logit_scale").nbytes  # which both have
    whole = sum(p.nbytes for p in parameters.values())
    middle_rows = sum(p.nbytes // len(p) for p in parameters.values() if len(p) % 2)
    for sizes, own in ((first, whole + middle_rows), (second, whole - middle_rows)):
        expected = own // 2 + of_scale
        assert sizes == {
            "parameters": expected, "gradients": expected, "moments": 2 * expected
        }  # fmt: skip
    assert middle_rows < whole / 1000


def test_a_resume_point_is_whole_whoever_wrote_it(toy: Any, task: Any, together: Any) -> None:
    """Taken up by as many bit for bit; by one, or from one, to 1e-5."""
    start = toy.theta()
    given = {
        "preserve": {"name": "si"},
        "average": ExponentialAverage(name="exponential", decay=0.5),
    }

    def alone(identity: str, fail_at: int | None = None) -> Any:
        model, _ = toy.stage(start, task(1), identity=identity, fail_at=fail_at, **given)
        return model.module.state_dict()

    def of_two(identity: str, fail_at: int | None = None) -> Any:
        def work(group: ProcessGroup) -> Any:
            options = {"identity": identity, "fail_at": fail_at, **given}
            if fail_at is None:
                return sharded(toy, start, task(1), group, **options)[0]
            with pytest.raises(OSError, match="the disk is gone"):
                sharded(toy, start, task(1), group, **options)
            return None

        return together(2, work)[0]

    whole = of_two("whole")
    for identity in ("by_two", "by_one"):
        of_two(identity, fail_at=2)
    with pytest.raises(OSError, match="the disk is gone"):
        alone("from_one", fail_at=2)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in of_two("by_two").items())
    assert_close(alone("by_one"), whole, rtol=0, atol=1e-5)
    assert_close(of_two("from_one"), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "blocks"), [("ViT-B-32", 12 + 12), ("convnext_base", 3 + 3 + 27 + 3 + 12)]
)
def test_blocks_are_found_in_any_tower(name: str, blocks: int) -> None:
    with torch.device("meta"):
        module = CLIP(**open_clip.get_model_config(name))
    found = list(blocks_of(module))
    assert len(found) == blocks
    within = sum(p.numel() for block in found for p in block.parameters())
    assert within > 0.7 * sum(p.numel() for p in module.parameters())
