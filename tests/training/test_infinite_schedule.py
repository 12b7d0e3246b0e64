"""The infinite schedule against a plain float64 computation of its formula, and its stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.optimisation.annealing import steps_before_anneal
from fomo_dagster.optimisation.schedules import AnySchedule, Schedule
from fomo_dagster.training import loop
from fomo_dagster.training.spec import StageSpec, TrainingRun
from tests.training.test_loop import CONFIGURATION, Batches, create, equal, failing_at, settings

STEPS = 8
LENGTHS = {"warmup": 2, "cooldown": 2, "annealing": 2, "constant_factor": 0.4}


def declared(**values: Any) -> Schedule:
    schedule: Schedule = TypeAdapter(AnySchedule).validate_python(
        {"name": "infinite", **LENGTHS, "final_factor": 0.01, **values}
    )
    return schedule


def rates(schedule: Schedule, steps: int, stage: int) -> list[float]:
    return [
        schedule.learning_rate(3.0, stage=stage, step=step, steps=steps) for step in range(steps)
    ]


def test_the_first_stage_goes_through_four_phases_and_later_ones_through_two() -> None:
    """Eq. 1 of arXiv 2503.02844, counted so that each phase ends at its last step."""
    schedule = declared(warmup=0.1, cooldown=0.3, annealing=0.2)
    peak, constant, floor = 3.0, 1.2, 0.03
    shares = np.arange(1, 31) / 30
    cooled = constant + (1 + np.cos(np.pi * shares)) / 2 * (peak - constant)
    annealed = np.exp(np.log(constant) + np.arange(1, 21) / 20 * np.log(floor / constant))
    first = np.concatenate([peak * np.arange(1, 11) / 10, cooled, np.full(40, constant), annealed])
    np.testing.assert_allclose(rates(schedule, 100, 1), first, rtol=1e-12)
    np.testing.assert_allclose(rates(schedule, 100, 0), first, rtol=1e-12)
    later = np.concatenate([np.full(80, constant), annealed])
    for stage in (2, 7):
        np.testing.assert_allclose(rates(schedule, 100, stage), later, rtol=1e-12)


def test_without_anneals_the_stages_are_one_schedule() -> None:
    schedule = declared()
    joined = rates(schedule, STEPS, 1)[:6] + rates(schedule, STEPS, 2)[:6]
    longer = declared(annealing=0)
    assert joined == rates(longer, 12, 1)


def test_wsd_warms_up_in_the_first_stage_alone_where_it_is_continued() -> None:
    wsd = {"name": "wsd", "warmup": 2, "cooldown": 2}
    plain: Schedule = TypeAdapter(AnySchedule).validate_python(wsd)
    continued: Schedule = TypeAdapter(AnySchedule).validate_python(wsd | {"recovery": "continued"})
    assert "recovery" not in plain.model_dump()
    assert rates(continued, STEPS, 1) == rates(plain, STEPS, 1) == rates(plain, STEPS, 2)
    assert rates(continued, STEPS, 2) == [3.0, 3.0, *rates(plain, STEPS, 2)[2:]]


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ({"name": "infinite", "annealing": 0.25}, 75),
        ({"name": "wsd", "cooldown": 10}, 90),
        ({"name": "rsqrt", "cooldown": 0.3}, 70),
    ],
)
def test_an_anneal_begins_where_the_last_fall_does(schedule: dict[str, Any], steps: int) -> None:
    made: Schedule = TypeAdapter(AnySchedule).validate_python(schedule)
    assert steps_before_anneal(made, 100) == steps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"final_factor": 0.5}, "final_factor is 0.5, above constant_factor, which is 0.4"),
        ({"final_factor": 0}, "greater than 0"),
        ({"constant_factor": 1.5}, "less than or equal to 1"),
    ],
)
def test_an_anneal_that_rises_or_ends_at_nothing_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        declared(**values)


def test_parts_that_do_not_fit_are_named() -> None:
    assert declared(annealing=5).misfit(STEPS) == (
        "schedule.warmup of 2 (2 steps) and schedule.cooldown of 2 (2 steps) and "
        "schedule.annealing of 5 (5 steps) do not fit into a stage of 8 steps: make them shorter"
    )


def trained(
    folder: Path, batches: Batches, **changes: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights at the end and before the anneal."""
    model = create(CONFIGURATION)
    select_trained(model.module, "all")
    spec = StageSpec(
        settings=settings(schedule=declared(), budget=Budget(steps=STEPS)),
        seed=0,
        stage=1,
        execution=Execution(device="cpu", resume_seconds=1e-9),
        method=Finetune(start_from="unannealed"),
    )
    spec = replace(spec, **changes)
    found = loop.train(model, batches, spec, TrainingRun(resume_folder=folder, identity="one"))
    return model.module.state_dict(), found.unannealed


@pytest.mark.slow
def test_a_stage_that_breaks_in_any_phase_leaves_the_same_weights(tmp_path: Path) -> None:
    """Before each step: in the warm-up, the cool-down, at the constant rate, where the anneal
    begins, and in it."""
    whole, left = trained(tmp_path / "whole", Batches(STEPS))
    assert left.keys() == whole.keys()
    assert not equal(left, whole)
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        with pytest.raises(OSError, match="the disk is gone"):
            trained(folder, Batches(STEPS, before=failing_at(stop)))
        batches = Batches(STEPS)
        again, left_again = trained(folder, batches)
        assert batches.started_at == stop
        assert equal(again, whole)
        assert equal(left_again, left)


def test_only_stages_that_the_next_starts_from_so_leave_unannealed_weights(tmp_path: Path) -> None:
    _, left = trained(tmp_path / "plain", Batches(STEPS), method=Finetune())
    assert not left
    _, left = trained(tmp_path / "theta", Batches(STEPS), stage=0)
    assert not left


def test_a_stage_that_is_all_anneal_is_refused_before_it_trains(tmp_path: Path) -> None:
    wsd: Schedule = TypeAdapter(AnySchedule).validate_python(
        {"name": "wsd", "warmup": 0, "cooldown": 8}
    )
    with pytest.raises(InputError, match="takes all 8 steps of a stage"):
        trained(tmp_path, Batches(STEPS), settings=settings(schedule=wsd, budget=Budget(steps=8)))


def test_what_is_left_is_what_six_steps_give(tmp_path: Path) -> None:
    whole, left = trained(tmp_path / "one", Batches(STEPS))
    shorter = settings(schedule=declared(annealing=0), budget=Budget(steps=6))
    other, _ = trained(tmp_path / "two", Batches(6), settings=shorter, method=Finetune())
    assert equal(left, other)
    assert not any(torch.equal(whole[n], other[n]) for n in ("visual.proj", "text_projection"))
