"""Mixtures that change: what each stage depends on, draws, and what a change computes again."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY, Facts

pytestmark = pytest.mark.usefixtures("uncounted")

THIRDS = {"update": 0.34, "buffer": 0.33, "pretraining": 0.33}
CHUNKS = [f"streams/toy/chunk_{number:03d}" for number in (1, 2, 3)]


def digest(project: Any, stage: int, mixture: Any, *overrides: str) -> str:
    node = project.graph("toy", f"mixture={mixture}", *overrides).nodes[f"toy/trained_{stage:03d}"]
    recipes = node.recipes({key: Facts(f"version of {key}") for key in node.inputs})
    return str(recipes[ONLY].digest)


def inputs(project: Any, mixture: Any, stage: int) -> set[str]:
    nodes = project.graph("toy", f"mixture={mixture}").nodes
    return set(nodes[f"toy/trained_{stage:03d}"].inputs)


def test_a_stage_depends_on_a_pool_only_where_a_step_draws_from_it(project: Any) -> None:
    late = {
        "over": "stages",
        "points": [
            {"at": 1, "update": 1},
            {"at": 2, "update": 0.5, "pretraining": 0.5},
            {"at": 3, "update": 0.5, "buffer": 0.5},
        ],
    }
    assert inputs(project, late, 1) == {"backbones/toy", CHUNKS[0]}
    assert inputs(project, late, 2) == {"toy/trained_001", CHUNKS[1], "pools/toy"}
    assert inputs(project, late, 3) == {"toy/trained_002", *CHUNKS}
    first = {"over": "steps", "points": [{"at": 0, "pretraining": 1}, {"at": 0.5, "update": 1}]}
    for stage in (2, 3):
        expected = {f"toy/trained_{stage - 1:03d}", CHUNKS[stage - 1], "pools/toy"}
        assert inputs(project, first, stage) == expected


def test_a_stage_is_the_same_however_its_shares_are_declared(project: Any) -> None:
    half = {"update": 0.5, "buffer": 0.25, "pretraining": 0.25}
    for over, at in (("stages", 1), ("steps", 0)):
        held = {"over": over, "points": [{"at": at, **THIRDS}]}
        for stage in (1, 2):
            assert digest(project, stage, held) == digest(project, stage, THIRDS)
    table = {"over": "stages", "points": [{"at": 1, **THIRDS}, {"at": 3, **half}]}
    assert digest(project, 2, table) == digest(project, 2, THIRDS)
    assert digest(project, 3, table) == digest(project, 3, half)
    over_steps = {"over": "steps", "points": [{"at": 0, **THIRDS}, {"at": 0.5, **half}]}
    linear = over_steps | {"between": "linear"}
    assert len({digest(project, 2, m) for m in (THIRDS, half, over_steps, linear)}) == 4


def test_pretraining_first_and_the_mixture_after_it(finished_project: Any) -> None:
    """With a budget in epochs, which says how many update samples are drawn."""
    project = finished_project
    points = [{"at": 0, "pretraining": 1}, {"at": 0.4, **THIRDS}]
    project.write(
        "first", mixture={"over": "steps", "points": points}, budget={"epochs": 1.5}, batch_size=6
    )
    run_experiment("first", [])
    for stage in (1, 2, 3):
        head = project.home.heads.read(f"first/trained_{stage:03d}")
        steps = pl.read_parquet(
            project.home.store.open(*head.artifacts["only"]).path("training_steps.parquet")
        )
        update = 4 if stage == 1 else 3
        before = -(-4 * steps.height // 10)
        expected = [0] * before + [update] * (steps.height - before)
        assert steps["update_samples"].to_list() == expected
        assert steps["pretraining_samples"][0] == 6
        assert sum(expected) >= 12 > sum(expected) - update, "1.5 times the 8 samples of a chunk"
        counts = steps.select("update_samples", "buffer_samples", "pretraining_samples")
        assert (counts.sum_horizontal() == 6).all()
        assert (counts["buffer_samples"].sum() == 0) == (stage == 1)
    points[1]["at"] = 0.5
    project.write(
        "first", mixture={"over": "steps", "points": points}, budget={"epochs": 1.5}, batch_size=6
    )
    planned = {entry.asset for entry in resolve_request("first", []).plan() if entry.compute}
    assert planned >= {f"first/trained_{stage:03d}" for stage in (1, 2, 3)}


def test_a_point_that_no_step_reaches_is_refused_when_the_steps_are_known(
    finished_project: Any,
) -> None:
    late = {"over": "steps", "points": [{"at": 0, **THIRDS}, {"at": 0.9, "update": 1}]}
    finished_project.write("late", mixture=late, budget={"epochs": 1})
    with pytest.raises(InputError, match=r"point at 0\.9 .* none of the \d steps"):
        run_experiment("late", [])
