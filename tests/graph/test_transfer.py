"""Learning from another backbone, through the stages of an experiment."""

from __future__ import annotations

import copy
from typing import Any

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uncounted")]


@pytest.fixture
def teacher(small_backbone: dict[str, Any]) -> dict[str, Any]:
    return small_backbone | {"name": "teacher"}


def write(project: Any, teacher: dict[str, Any], **changes: Any) -> None:
    project.write(
        "taught", method={"preserve": {"name": "transfer", "teacher": teacher, **changes}}
    )


def to_compute() -> set[str]:
    return {entry.asset for entry in resolve_request("taught", []).plan() if entry.compute}


def test_stages_learn_from_a_teacher_and_follow_what_it_is_made_of(
    finished_project: Any, teacher: dict[str, Any]
) -> None:
    project = finished_project
    write(project, teacher)
    nodes = project.graph("taught").nodes
    assert nodes["backbones/teacher"].inputs == ("pools/toy",)
    for stage in (1, 2, 3):
        plain = project.graph().nodes[f"toy/trained_{stage:03d}"].inputs
        own = {key.replace("toy/trained", "taught/trained") for key in plain}
        assert set(nodes[f"taught/trained_{stage:03d}"].inputs) == own | {"backbones/teacher"}
    run_experiment("taught", [])
    head = project.home.heads.read("taught/trained_002")
    trained = project.home.store.open(*head.artifacts["only"])
    steps = pl.read_parquet(trained.path("training_steps.parquet"))
    assert (steps["preservation_loss"] > 0).all()

    following = {f"taught/{kind}_{s:03d}" for kind in ("trained", "evaluation") for s in (1, 2, 3)}
    following |= {"taught/scores", "leaderboard"}
    assert to_compute() == set()
    another = copy.deepcopy(teacher)
    another["pretraining"]["seed"] = 1
    write(project, another)
    assert to_compute() == following | {"backbones/teacher"}
    write(project, teacher, supervised=False)
    assert to_compute() == following
    write(project, teacher | {"name": "renamed"})
    assert to_compute() <= {"taught/scores", "leaderboard"}


def test_a_teacher_may_come_from_a_file_which_is_then_looked_at(
    project: Any, teacher: dict[str, Any]
) -> None:
    from_file = {**teacher, "weights": "teacher.safetensors"}
    del from_file["pretraining"]
    write(project, from_file)
    graph = project.graph("taught")
    assert graph.nodes["backbones/teacher"].inputs == ("sources/weights_teacher",)
    assert graph.sources["sources/weights_teacher"].observe.path.name == "teacher.safetensors"


def test_a_teacher_that_cannot_be_is_refused(project: Any, teacher: dict[str, Any]) -> None:
    write(project, {k: v for k, v in teacher.items() if k != "pretraining"})
    with pytest.raises(InputError, match=r"exactly one of pretrained, weights, pretraining"):
        project.load("taught")
    write(project, teacher | {"name": "toy"})
    with pytest.raises(InputError, match=r"declare backbones/toy differently"):
        project.graph("taught")
    unknown = copy.deepcopy(teacher)
    unknown["pretraining"]["pool"] = {"name": "new", "datasets": ["olt"]}
    write(project, unknown)
    with pytest.raises(InputError, match=r"method.preserve.teacher.pretraining.pool.*'olt'.*'old'"):
        project.graph("taught")
