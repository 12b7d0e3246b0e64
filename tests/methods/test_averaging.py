"""Averages over the steps of a stage: their formulas, and where in a training they take effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget, TrainingSettings
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.averaging.average import Average
from fomo_dagster.methods.averaging.declaration import (
    AnyAverage,
    ExponentialAverage,
    UniformAverage,
)
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs
from fomo_dagster.optimisation.optimisers import ScheduleFreeAdamW
from fomo_dagster.optimisation.schedules import Constant
from fomo_dagster.training import loop
from fomo_dagster.training.spec import StageSpec, TrainingRun

EXPONENTIAL = ExponentialAverage(name="exponential", decay=0.8, every=2)
UNIFORM = UniformAverage(name="uniform", every=3)
SETTINGS = pytest.mark.parametrize("settings", [EXPONENTIAL, UNIFORM], ids=lambda s: s.name)


def closed_form(settings: AnyAverage, path: list[Tensor]) -> Tensor:
    """Of the start and what each step left, by the weight of each, in float64."""
    taken = [p.double() for p in path[:: settings.every]]
    if isinstance(settings, UniformAverage):
        return torch.stack(taken).mean(dim=0)
    decay, last = settings.decay, len(taken) - 1
    shares = [decay**last] + [(1 - decay) * decay ** (last - n) for n in range(1, last + 1)]
    return sum((s * t for s, t in zip(shares, taken, strict=True)), torch.zeros_like(taken[0]))


@SETTINGS
def test_an_average_is_its_closed_form(settings: AnyAverage) -> None:
    random = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, generator=random))
    average, path = Average(settings, {"a": parameter}, steps=11), [parameter.detach().clone()]
    for _ in range(11):
        parameter.data = torch.randn(5, generator=random)
        path.append(parameter.detach().clone())
        average.after_step()
    average.put_in_place()
    expected = closed_form(settings, path).float()
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7)


class Watching(StageHooks):
    """Writes down what each step leaves, and what there is at the end."""

    def __init__(self, stage_context: StageContext) -> None:
        super().__init__(stage_context)
        self.trained = stage_context.trained
        self.path = [self.now()]

    def now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def after_step(self) -> None:
        self.path.append(self.now())

    def end_of_stage(self) -> dict[str, Tensor]:
        return self.now()


class Batches:
    steps = 7

    def __init__(self, task: Any) -> None:
        self._task = task

    def iterate(self, start: int) -> Any:
        for step in range(start, self.steps):
            yield self._task.batch(step, {})


@pytest.mark.parametrize("adapted", [False, True], ids=["weights", "adapters"])
@SETTINGS
def test_a_stage_ends_with_the_average_and_what_it_leaves_is_measured_there(
    toy: Any, task: Any, tmp_path: Path, settings: AnyAverage, adapted: bool
) -> None:
    model = toy.theta()
    if adapted:
        add_adapters(model.module, Scaled(name="lora", rank=2), 0)
    watching: list[Watching] = []

    def watch(stage_context: StageContext) -> StageHooks:
        watching.append(Watching(stage_context))
        return watching[0]

    _, left, _ = loop.train(
        model,
        Batches(task(1)),
        StageSpec(
            settings=TrainingSettings(batch_size=8, budget=Budget(steps=7)),
            seed=0,
            stage=1,
            execution=Execution(device="cpu"),
            method=Finetune(average=settings),
        ),
        TrainingRun(resume_folder=tmp_path, identity="watched"),
        watch,
    )
    path, parameters = watching[0].path, dict(model.module.named_parameters())
    assert len(path) == 8
    assert any("lora" in name for name in left) == adapted
    for name, tensor in left.items():
        expected = closed_form(settings, [weights[name] for weights in path]).float()
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(tensor, parameters[name].detach())


def test_a_schedule_free_stage_ends_with_the_mean_and_not_where_it_trained(
    toy: Any, task: Any, tmp_path: Path
) -> None:
    """After two steps the mean follows from y₁ = x₁ = z₁ and y₂ = (1-β₁) z₂ + β₁ x₂."""
    watching: list[Watching] = []

    def watch(stage_context: StageContext) -> StageHooks:
        watching.append(Watching(stage_context))
        return watching[0]

    batches = Batches(task(1))
    batches.steps = 2
    model = toy.theta()
    loop.train(
        model,
        batches,
        StageSpec(
            settings=TrainingSettings(
                batch_size=8,
                budget=Budget(steps=2),
                optimiser=ScheduleFreeAdamW(
                    name="schedule_free_adamw", betas=(0.6, 0.999), learning_rate=1e-2
                ),
                schedule=Constant(name="constant", warmup=0),
            ),
            seed=0,
            stage=1,
            execution=Execution(device="cpu"),
        ),
        TrainingRun(resume_folder=tmp_path, identity="watched"),
        watch,
    )
    _, first, second = watching[0].path
    squares = [1 - 0.999, 1 - 0.999**2]
    share = squares[1] / sum(squares)
    for name, parameter in model.module.named_parameters():
        y, z_of = first[name].double(), second[name].double()
        expected = ((1 - share) * y + share * z_of / 0.4) / (1 + share * 0.6 / 0.4)
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-4, atol=1e-6)
    assert not torch.equal(model.module.visual.proj, second["visual.proj"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [ExponentialAverage(name="exponential", decay=0.95), UniformAverage(name="uniform", every=4)],
    ids=lambda s: s.name,
)
def test_an_average_forgets_less_and_learns(toy: Any, task: Any, settings: AnyAverage) -> None:
    first, _ = toy.stage(toy.theta(), task(1), identity="first")
    plain, _ = toy.stage(first, task(2), identity="plain")
    held, _ = toy.stage(first, task(2), average=settings, identity="held")
    assert task(1).loss(held) < 0.5 * task(1).loss(plain)
    assert task(2).loss(held) < 0.1 * task(2).loss(first)


@pytest.mark.slow
@SETTINGS
def test_an_interrupted_second_stage_ends_bit_for_bit_as_a_whole_one(
    toy: Any, task: Any, settings: AnyAverage
) -> None:
    """With SI beside it, which goes by the steps and not by their average."""
    si = {"name": "si", "strength": 20}
    first, left = toy.stage(toy.theta(), task(1), si, average=settings, identity="first")
    given = {
        "preserve": si,
        "stage_inputs": StageInputs(carried=left),
        "average": settings,
        "stage": 2,
    }
    whole, whole_left = toy.stage(first, task(2), identity="whole", **given)
    with pytest.raises(OSError, match="disk"):
        toy.stage(first, task(2), identity="broken", fail_at=23, **given)
    resumed, resumed_left = toy.stage(first, task(2), identity="broken", **given)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
    for name, tensor in whole_left.items():
        assert torch.equal(tensor, resumed_left[name]), name


def test_an_average_that_would_take_no_step_is_refused() -> None:
    trained = {"a": nn.Parameter(torch.zeros(1))}
    Average(UNIFORM, trained, steps=3)
    with pytest.raises(InputError, match=r"average.every is 3, but the stage has only 2 steps"):
        Average(UNIFORM, trained, steps=2)
