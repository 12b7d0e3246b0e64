"""Mixtures that change over stages or steps, as files declare them."""

from __future__ import annotations

from typing import Any

import pytest

from fomo_dagster.data.mixture import POOLS
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.mixture import ChangingMixture

NEW = {"update": 1}
HALF = {"update": 0.5, "buffer": 0.25, "pretraining": 0.25}
PAST = {"update": 0.2, "buffer": 0.4, "pretraining": 0.4}


def points(*given: tuple[float, dict[str, float]]) -> list[dict[str, float]]:
    return [{"at": at, **shares} for at, shares in given]


def of_stages(mixture: ChangingMixture, *stages: int) -> list[dict[str, float]]:
    """The shares of some stages, constant in each."""
    found = [mixture.of_stage(stage) for stage in stages]
    assert all(shares.is_constant for shares in found)
    return [{p: s for p, s in shares.points[0][1].items() if s} for shares in found]


def test_a_table_over_stages_holds_from_each_stage_on() -> None:
    mixture = ChangingMixture(over="stages", points=points((1, NEW), (3, HALF), (4, PAST)))
    assert of_stages(mixture, 1, 2, 3, 4, 9) == [NEW, NEW, HALF, PAST, PAST]


def test_a_ramp_over_stages_has_decimal_shares() -> None:
    mixture = ChangingMixture(over="stages", between="linear", points=points((1, HALF), (4, PAST)))
    third = {"update": 0.4, "buffer": 0.3, "pretraining": 0.3}
    assert of_stages(mixture, 1, 2, 4, 5) == [HALF, third, PAST, PAST]


def test_shares_over_steps_are_those_of_every_stage() -> None:
    declared = points((0, {"pretraining": 1}), (0.3, HALF))
    for between, is_linear in (("held", False), ("linear", True)):
        mixture = ChangingMixture(over="steps", between=between, points=declared)
        shares = mixture.of_stage(1)
        assert shares == mixture.of_stage(5)
        assert shares.linear is is_linear
        assert [at for at, _ in shares.points] == [0, 0.3]
        assert shares.points[1][1] == HALF


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"over": "stages", "points": points((1, HALF), (2, {"update": 0.5}))},
            r"mixture\.points\.1: the shares at 2 must add up to 1, not 0\.5",
        ),
        (
            {"over": "steps", "points": points((0, HALF), (0.5, PAST), (0.2, HALF))},
            r"mixture: the points must be in ascending order, and 0\.2 comes after 0\.5",
        ),
        ({"over": "stages", "points": points((1, HALF), (1, PAST))}, "1 comes after 1"),
        ({"over": "stages", "points": points((2, HALF))}, "begin at 1, and the first one is at 2"),
        ({"over": "steps", "points": points((0.1, HALF))}, r"begin at 0, .* first one is at 0\.1"),
        ({"over": "stages", "points": points((1, HALF), (2.5, PAST))}, r"stage's number, not 2\.5"),
        ({"over": "steps", "points": points((0, HALF), (1, PAST))}, "below 1, not at 1"),
        (
            {"over": "steps", "between": "linear", "points": points((0, HALF), (2, PAST))},
            "no more than 1, not at 2",
        ),
        (
            {"over": "stages", "points": points((1, HALF), (3, {"pretraining": 1}))},
            "update is 0 from stage 3 on",
        ),
        ({"over": "steps", "points": points((0, {"pretraining": 1}))}, "nothing new"),
        (
            {"over": "steps", "points": points((0, {"buffer": 1}), (0.5, HALF))},
            "at 0 only the buffer has a share, and the first stage has no buffer",
        ),
        ({"over": "steps", "points": []}, r"mixture\.points"),
        ({"points": points((0, HALF))}, r"mixture\.over is missing"),
        ({"over": "time", "points": points((0, HALF))}, r"mixture\.over is 'time'; valid"),
        (
            {"over": "steps", "points": [{"at": 0, "updat": 1}]},
            r"unknown key 'mixture\.points\.0\.updat' .*'update'",
        ),
        (
            {"over": "steps", "update": 1, "points": points((0, HALF))},
            r"unknown key 'mixture\.update'",
        ),
        (
            {"over": "stages", "points": points((1, NEW), (2, {"update": 0.98, "buffer": 0.02}))},
            r"mixture: at stage 2, batch_size 9 .* buffer .* 0\.02 gives no sample",
        ),
        (
            {
                "over": "stages",
                "between": "linear",
                "points": points((1, NEW), (11, {"update": 0.5, "buffer": 0.5})),
            },
            r"mixture: at stage 2, batch_size 9 .* 0\.05 gives no sample",
        ),
        (
            {"over": "steps", "points": points((0, {"update": 0.98, "pretraining": 0.02}))},
            r"mixture: at 0 of the steps, batch_size 9 .* pretraining .* no sample",
        ),
        (
            {"over": "steps", "points": points((0, NEW), (0.9, HALF))},
            r"mixture: the point at 0\.9 .* none of the 2 steps",
        ),
        (
            {"update": 0.95, "buffer": 0.05, "pretraining": 0},
            r"mixture: batch_size 9 .* buffer .* 0\.05 gives no sample",
        ),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_with_its_place(
    project: Any, mixture: dict[str, Any], message: str
) -> None:
    project.write("changing", mixture=mixture)
    with pytest.raises(InputError, match=message):
        project.load("changing")


def test_a_stream_of_one_stage_asks_no_sample_of_a_buffer(project: Any) -> None:
    project.write("small", mixture={"update": 0.95, "buffer": 0.05, "pretraining": 0})
    assert project.load("small", "stream.stages=1").experiment.mixture.buffer == 0.05


def test_a_share_of_a_pool_that_is_not_declared_is_named(project: Any) -> None:
    late = {"over": "stages", "points": points((1, NEW), (3, HALF))}
    backbone = {"name": "given", "architecture": "ViT-B-32", "pretrained": "openai"}
    project.write("changing", mixture=late, backbone=backbone)
    with pytest.raises(InputError, match=r"mixture\.points\.1\.pretraining is 0\.25, but there is"):
        project.load("changing")
    project.write("changing", mixture={"over": "stages", "points": points((1, NEW))})
    assert project.load("changing").experiment.pool is None


@pytest.mark.parametrize(
    ("name", "pool"), [("lwf", "update"), ("zscl", "pretraining"), ("der", "buffer")]
)
def test_a_preservation_has_its_samples_in_each_batch(project: Any, name: str, pool: str) -> None:
    without = {p: 0 if p == pool else 0.5 for p in POOLS}
    mixture = {"over": "steps", "points": points((0, without), (0.5, HALF))}
    project.write("changing", mixture=mixture, method={"preserve": {"name": name}})
    with pytest.raises(InputError, match=rf"{name} needs .* {pool} .*points\.0\.{pool} is 0"):
        project.load("changing")


def test_a_constant_mixture_replaces_one_that_changes_and_the_other_way_round(
    project: Any,
) -> None:
    changing = {"over": "steps", "points": points((0, {"pretraining": 1}), (0.3, HALF))}
    project.write("changing", mixture=changing)
    project.write("constant", extends="changing", mixture=HALF)
    project.write("ramp", extends="toy", mixture=changing)
    project.write("smooth", extends="ramp", mixture={"between": "linear"})
    assert project.load("constant").experiment.mixture.model_dump() == HALF
    assert project.load("ramp").experiment.mixture == project.load("changing").experiment.mixture
    assert project.load("smooth").experiment.mixture.of_stage(2).linear
    overridden = project.load("toy", f"mixture={changing}")
    assert overridden.experiment.mixture == project.load("changing").experiment.mixture
