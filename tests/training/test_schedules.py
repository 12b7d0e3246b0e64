"""Schedules against the benchmark's published values, torch's own, and curves cut into stages."""

from __future__ import annotations

import math
from itertools import chain, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.optimisation.schedules import AnySchedule, Schedule

S, W = 1420, 142  # the benchmark's; as many steps of cool-down as of warm-up
KEY_STEPS = (0, W - 1, W, S - W - 1, S - W, S - 1)
COSINES = (None, "autoregressive", "dynamic", "continued", "recovered")
RSQRTS = (None, "autoregressive", "continued", "recovered")


def declared(name: str, **values: Any) -> Schedule:
    if values.get("recovery") in ("continued", "recovered") and name == "cosine":
        values.setdefault("stages", 5)
    schedule: Schedule = TypeAdapter(AnySchedule).validate_python({"name": name, **values})
    return schedule


def rates(schedule: Schedule, steps: int, peak: float = 1.0, stage: int = 1) -> list[float]:
    assert schedule.misfit(steps) is None
    return [
        schedule.learning_rate(peak, stage=stage, step=step, steps=steps) for step in range(steps)
    ]


def test_cosine_agrees_with_torchs_schedulers() -> None:
    """Warm-up to the peak at its last step, then torch's cosine annealing from there on."""
    steps, warmup, peak = 100, 10, 2e-3
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=peak)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - warmup, peak * 0.001)
    annealed = [peak]
    for _ in range(steps - warmup):
        optimiser.step()
        cosine.step()
        annealed.append(optimiser.param_groups[0]["lr"])
    expected = [peak * (i + 1) / warmup for i in range(warmup)] + annealed[1:]
    assert rates(declared("cosine"), steps, peak) == pytest.approx(expected, rel=1e-9)
    plain = rates(declared("cosine_annealing"), steps - warmup, peak)
    assert plain == pytest.approx(annealed[:-1], rel=1e-9)


def test_the_benchmarks_stage_of_1420_steps_warms_up_for_142_and_ends_at_the_floor() -> None:
    found = rates(declared("cosine"), S)
    assert found[0] == 1 / 142
    assert found[141] == 1.0
    assert found[142] == pytest.approx(0.001 + 0.999 * (1 + math.cos(math.pi / 1278)) / 2)
    assert found[1419] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("recovery", "expected"),
    [
        ("autoregressive", (0.003, 0.427, 0.427, 0.143, 0.142, 0)),
        ("continued", (0.0024, 0.334, 0.334, 0.112, 0.1112, 0)),
        ("recovered_released", (0.0018, 0.2507, 0.334, 0.2433, 0.2416, 0)),
        ("recovered", (0.0024, 0.334, 0.334, 0.2433, 0.2416, 0)),  # without the released jump
    ],
)
def test_rsqrt_in_the_second_stage_has_the_benchmarks_values(
    recovery: str, expected: tuple[float, ...]
) -> None:
    found = rates(declared("rsqrt", recovery=recovery), S, stage=2)
    for step, value in zip(KEY_STEPS, expected, strict=True):
        assert found[step] == pytest.approx(value, abs=6e-4 if value > 0.01 else 6e-5)


def test_the_bases_of_autoregressive_cosine_are_the_benchmarks() -> None:
    bases = [
        max(rates(declared("cosine", recovery="autoregressive"), S, stage=n)) for n in range(1, 6)
    ]
    floored = [0.001 + v * 0.999 for v in (1, 0.4994, 0.2496, 0.1462, 0.0953)]
    assert bases == pytest.approx(floored, abs=6e-5)


def test_rsqrt_falls_by_the_root_of_its_step_and_to_nothing_at_the_end() -> None:
    found = rates(declared("rsqrt", warmup=4, cooldown=5, final_factor=0), 20, 3.0)
    expected = [3.0 * (i + 1) / 4 for i in range(4)] + [
        3.0 * math.sqrt(4 / i) for i in range(4, 20)
    ]
    for place, left in enumerate((4, 3, 2, 1, 0), start=15):
        expected[place] *= left / 5
    assert found == pytest.approx(expected, rel=1e-12)


@given(st.integers(20, 120), st.integers(1, 9), st.integers(0, 9), st.integers(1, 6))
def test_recovered_rsqrt_is_one_curve_with_warm_ups_and_cool_downs_between(
    steps: int, warmup: int, cooldown: int, stage: int
) -> None:
    lengths = {"warmup": warmup, "cooldown": cooldown, "final_factor": 0.01}
    kept = steps - warmup - cooldown
    curve = [0.01 + 0.99 * math.sqrt(warmup / (warmup + n)) for n in range(stage * kept)]
    piece = curve[(stage - 1) * kept :]
    recovered = rates(declared("rsqrt", recovery="recovered", **lengths), steps, stage=stage)
    assert recovered[warmup : warmup + kept] == pytest.approx(piece, rel=1e-12)
    continued = rates(declared("rsqrt", recovery="continued", **lengths), steps, stage=stage)
    for found in (recovered, continued):
        rise = [piece[0] * (i + 1) / warmup for i in range(warmup)]
        assert found[:warmup] == pytest.approx(rise, rel=1e-12)
    fresh = rates(declared("rsqrt", **lengths), steps, stage=stage)
    shrunk = [
        0.01 + (rate - 0.01) * (piece[0] - 0.01) / 0.99 for rate in fresh[warmup : warmup + kept]
    ]
    assert continued[warmup : warmup + kept] == pytest.approx(shrunk, rel=1e-9)


@pytest.mark.slow
@given(st.integers(12, 60), st.integers(0, 6), st.integers(1, 6))
def test_cosines_that_stay_on_one_curve_are_pieces_of_it(
    steps: int, warmup: int, stages: int
) -> None:
    """That over all stages (recovered), or that over the stages up to each (dynamic)."""
    kept = steps - warmup

    def curve(over: int) -> list[float]:
        plain = declared("cosine", warmup=0)
        return rates(plain, over * kept) if over else [1.0]

    def decays(recovery: str, stage: int) -> list[float]:
        schedule = {"warmup": warmup, "recovery": recovery}
        if recovery in ("recovered", "continued"):
            schedule["stages"] = stages
        return rates(declared("cosine", **schedule), steps, stage=stage)

    whole = [decays("recovered", stage)[warmup:] for stage in range(1, stages + 1)]
    joined = list(chain.from_iterable(whole))
    assert joined == pytest.approx(curve(stages), rel=1e-9)
    after = decays("recovered", stages + 1)
    assert max(after) == pytest.approx(0.001)  # past the curve's end: its floor
    for stage in range(1, stages + 1):
        piece = curve(stage)[(stage - 1) * kept :]
        assert decays("dynamic", stage)[warmup:] == pytest.approx(piece, rel=1e-9)
        if warmup:
            base = piece[0] if stage > 1 else 1.0  # the first stage warms up to the declared rate
            assert decays("dynamic", stage)[warmup - 1] == pytest.approx(base, rel=1e-9)
            assert decays("autoregressive", stage)[warmup - 1] == pytest.approx(base, rel=1e-9)
            start = [1.0, *joined][(stage - 1) * kept]
            for recovery in ("continued", "recovered"):
                assert decays(recovery, stage)[warmup - 1] == pytest.approx(start, rel=1e-9)
        for recovery in ("autoregressive", "continued"):
            assert decays(recovery, stage)[-1] == pytest.approx(0.001, rel=1e-9)


def test_a_constant_rate_has_the_same_warm_up() -> None:
    found = rates(declared("constant", warmup=0.25), 8)
    assert found == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert rates(declared("constant", warmup=2), 8) == found


def test_milestones_are_where_the_rate_becomes_smaller() -> None:
    found = rates(declared("multistep", milestones=[0.25, 6], factor=0.5, warmup=1), 8, 4.0)
    assert found == [4.0, 4.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "share"), [("linear", lambda x: x), ("sqrt", lambda x: math.sqrt(x))]
)
def test_warmup_stable_decay_is_stable_until_it_cools_down_to_the_floor(
    shape: str, share: Any
) -> None:
    found = rates(declared("wsd", warmup=2, cooldown=0.4, shape=shape, final_factor=0.1), 10)
    cooled = [1 - 0.9 * share(k / 4) for k in (1, 2, 3, 4)]
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, *cooled], rel=1e-12)


def test_a_share_of_steps_is_not_rounded_up_by_its_binary_form() -> None:
    assert 0.07 * 100 > 7
    assert rates(declared("constant", warmup=0.07), 100)[6] == 1.0
    assert rates(declared("constant", warmup=0.07), 100)[5] == pytest.approx(6 / 7)


SMOOTH = [
    ("constant", {}), ("cosine_annealing", {}), ("wsd", {"shape": "linear"}),
    ("wsd", {"shape": "sqrt"}), *(("cosine", {"recovery": r}) for r in COSINES),
    *(("rsqrt", {"recovery": r}) for r in RSQRTS),
]  # fmt: skip


@given(
    st.sampled_from(SMOOTH),
    st.integers(40, 400),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.floats(0, 1),
    st.integers(1, 9),
)
def test_rates_rise_to_a_base_then_never_rise_and_never_jump(
    which: tuple[str, dict[str, Any]],
    steps: int,
    warmup: float,
    cooldown: float,
    factor: float,
    stage: int,
) -> None:
    name, values = which
    form = type(declared(name, **values)).model_fields
    given_ = {"warmup": warmup, "cooldown": cooldown, "final_factor": factor}
    has = {key: value for key, value in given_.items() if key in form} | values
    schedule = declared(name, **has)
    found = rates(schedule, steps, 3.0, stage)
    lengths = schedule.lengths(steps)
    warm, cool = lengths.get("warmup", 0), lengths.get("cooldown", 0)
    assert all(0 <= rate <= 3.0 + 1e-12 for rate in found)
    if warm:  # the warm-up ends at the base, which nothing exceeds
        assert found[warm - 1] == pytest.approx(max(found), rel=1e-12)
        assert found[:warm] == pytest.approx(
            [found[warm - 1] * (i + 1) / warm for i in range(warm)]
        )
    decay = found[max(warm - 1, 0) :]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(decay))
    steepest = math.pi / 2 / max(steps - warm, 1)  # a cosine's
    if warm:
        steepest = max(steepest, 1 / warm)
    if cool:
        root = values.get("shape") == "sqrt"
        steepest = max(steepest, 1 / math.sqrt(cool) if root else 1 / cool + 1 / (2 * warm))
    assert all(abs(after - before) <= 3.0 * steepest + 1e-9 for before, after in pairwise(found))
    if stage == 1 and name not in ("cosine", "rsqrt"):
        assert rates(schedule, steps, 3.0, stage=7) == found  # no other stage changes them


@pytest.mark.parametrize("name", ["cosine", "rsqrt"])
def test_theta_0s_own_training_is_like_a_first_stage(name: str) -> None:
    for recovery in COSINES if name == "cosine" else RSQRTS:
        schedule = declared(name, recovery=recovery)
        assert rates(schedule, 50, stage=0) == rates(schedule, 50, stage=1)


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_stage_is_an_error(step: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} is not one of 10"):
        declared("cosine").learning_rate(1.0, stage=1, step=step, steps=10)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "rsqrt", "warmup": 0}, "greater than 0"),
        ({"name": "wsd", "warmup": 1.5}, "1.5 is neither a share .* nor a number of steps"),
        ({"name": "rsqrt", "warmup": 60, "cooldown": 0.5},
         r"schedule.warmup of 60 \(60 steps\) and schedule.cooldown of 0.5 \(50 steps\) do not fit "
         "into a stage of 100 steps"),
        ({"warmup": 101}, "do not fit into a stage of 100 steps"),
        ({"name": "multistep", "milestones": [0.5, 20]}, r"the steps \[50, 20\], which must rise"),
        ({"name": "multistep", "milestones": []}, "at least 1 item"),
        ({"recovery": "continued"}, "give their number as stages"),
        ({"recovery": "dynamic", "stages": 3}, "stages goes with recovery: continued or recovered"),
        ({"name": "rsqrt", "recovery": "dynamic"}, "'recovered_released'"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_refused_where_it_is_declared(
    schedule: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings.model_validate(
            {"schedule": schedule, "budget": {"samples": 800}, "batch_size": 8}
        )


def test_what_was_stored_with_a_schedule_keeps_its_address() -> None:
    for name in ("cosine", "constant"):
        dumped = TrainingSettings.model_validate({"schedule": {"name": name}}).model_dump(
            mode="json"
        )
        assert dumped["schedule"] == {"name": name, "warmup": 0.1, "final_factor": 0.001}
    assert TrainingSettings().schedule.name == "cosine"


@pytest.mark.parametrize(("steps", "share"), [(5, 0.1), (31, 0.1), (142, 0.05), (1420, 0.1)])
def test_a_dynamic_cosine_has_one_warm_up_over_all_its_stages(steps: int, share: float) -> None:
    """The released formula, whose share is rounded up once, over (t+1) S steps."""
    schedule = declared("cosine", recovery="dynamic", warmup=share)
    for before in range(4):
        found = rates(schedule, steps, stage=before + 1)
        warmup, total = math.ceil(round(share * (before + 1) * steps, 9)), (before + 1) * steps
        for i in range(math.ceil(round(share * steps, 9)), steps):
            past = (before * steps + i - warmup + 1) / (total - warmup)
            expected = 0.001 + 0.5 * (1 + math.cos(math.pi * past)) * 0.999
            assert found[i] == pytest.approx(expected, rel=1e-12)
