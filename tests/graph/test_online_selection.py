"""Online selection through the stages of an experiment."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY, Facts

pytestmark = pytest.mark.slow


@pytest.fixture
def learnable(small_backbone: dict[str, Any]) -> dict[str, Any]:
    return {"name": "learnability", "share": 0.4, "reference": small_backbone}


def digest(project: Any, name: str, stage: int) -> str:
    node = project.graph(name).nodes[f"{name}/trained_{stage:03d}"]
    facts = {key: Facts(f"version of {key.replace(name, 'toy')}") for key in node.inputs}
    return str(node.recipes(facts)[ONLY].digest)


def test_selection_enters_the_recipe_where_it_is_declared_and_only_there(
    project: Any, learnable: dict[str, Any]
) -> None:
    project.write("none", selection=None)
    assert digest(project, "none", 1) == digest(project, "toy", 1)
    digests = {digest(project, "toy", 1)}
    for number, selection in enumerate(
        [
            learnable,
            learnable | {"share": 0.5},
            {"name": "random", "share": 0.4},
            learnable | {"name": "jest"},
            learnable | {"name": "jest", "chunks": 4},
        ]
    ):
        project.write(f"selecting{number}", selection=selection)
        digests.add(digest(project, f"selecting{number}", 1))
    assert len(digests) == 6


def test_stages_train_on_what_the_reference_finds_worth_it(
    finished_project: Any, learnable: dict[str, Any]
) -> None:
    """With replay of remembered features, which must be those of the rows that were kept."""
    project = finished_project
    changes: dict[str, Any] = {
        "method": {"preserve": {"name": "der"}}, "budget": {"samples": 27}
    }  # fmt: skip
    project.write("selecting", selection=learnable, **changes)
    nodes = project.graph("selecting").nodes
    for stage in (1, 2, 3):
        assert "backbones/small" in nodes[f"selecting/trained_{stage:03d}"].inputs
    run_experiment("selecting", [])
    trained = {}
    for stage, (update, buffer) in {1: (5, 0), 3: (4, 2)}.items():
        head = project.home.heads.read(f"selecting/trained_{stage:03d}")
        trained[stage] = project.home.store.open(*head.artifacts[ONLY])
        steps = pl.read_parquet(trained[stage].path("training_steps.parquet"))
        assert steps["update_samples"].to_list() == [update] * 3
        assert steps["buffer_samples"].to_list() == [buffer] * 3
        assert steps["pretraining_samples"].to_list() == [9 - update - buffer] * 3
        assert head.cost["samples"] == 27
    assert trained[1].cost["drawn_samples"] == 3 * (13 + 10), "⌊5 / 0.4 + ½⌋ and ⌊4 / 0.4 + ½⌋"
    assert trained[3].cost["drawn_samples"] == 3 * (10 + 5 + 8)

    def planned() -> set[str]:
        return {entry.asset for entry in resolve_request("selecting", []).plan() if entry.compute}

    assert planned() == set()
    reference = learnable["reference"]
    another = reference | {"pretraining": {**reference["pretraining"], "seed": 1}}
    project.write("selecting", selection=learnable | {"reference": another}, **changes)
    every = {f"selecting/trained_{stage:03d}" for stage in (1, 2, 3)}
    assert planned() >= every | {"backbones/small"}
    project.write(
        "selecting", selection=learnable | {"reference": reference | {"name": "other"}}, **changes
    )
    assert not planned() & every


def test_a_child_s_control_has_no_reference(project: Any, learnable: dict[str, Any]) -> None:
    project.write("selecting", selection=learnable)
    project.write("control", extends="selecting", selection={"name": "random"})
    control = project.load("control").experiment.selection
    assert (control.name, control.share) == ("random", 0.4)
    assert "backbones/small" not in project.graph("control").nodes


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"name": "learnabilty", "share": 0.2}, r"selection\.name is 'learnabilty'; did you mean"),
        ({"name": "learnability", "share": 0.2}, r"selection\.reference is missing"),
        ({"name": "random", "share": 1}, r"selection\.share is 1"),
        ({"name": "random"}, r"selection\.share is missing"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(
    project: Any, selection: dict[str, Any], message: str
) -> None:
    project.write("selecting", selection=selection)
    with pytest.raises(InputError, match=message):
        project.graph("selecting")


def test_a_reference_that_cannot_be_is_refused(
    project: Any, small_backbone: dict[str, Any], learnable: dict[str, Any]
) -> None:
    useless = {"name": "random", "share": 0.2, "reference": small_backbone}
    project.write("selecting", selection=useless)
    with pytest.raises(InputError, match=r"unknown key 'selection\.reference'"):
        project.graph("selecting")
    same_name = learnable | {"reference": small_backbone | {"name": "toy"}}
    project.write("selecting", selection=same_name)
    with pytest.raises(InputError, match="declare backbones/toy different"):
        project.graph("selecting")
