from __future__ import annotations

from typing import Any

import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import CARRIED
from fomo_dagster.progress import Callbacks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uncounted")]


def inputs(project: Any, name: str, stage: int) -> tuple[str, ...]:
    return project.graph(name).nodes[f"{name}/trained_{stage:03d}"].inputs


def test_a_stage_depends_on_the_weights_that_its_preservation_looks_back_at(project: Any) -> None:
    for name, to in (("near_start", "start"), ("near_theta", "initial")):
        preserve = {"name": "l2", "strength": 0.1, "to": to}
        project.write(name, method={"name": "finetune", "preserve": preserve})
    project.write("plain")
    theta = "backbones/toy"
    assert inputs(project, "near_start", 2) == tuple(
        key.replace("plain/", "near_start/") for key in inputs(project, "plain", 2)
    )
    assert theta in inputs(project, "near_theta", 2)
    assert theta not in inputs(project, "near_start", 2)


def test_a_stage_depends_on_its_teacher_and_on_nothing_more(project: Any) -> None:
    merged = {"merge": {"technique": "interpolation"}}
    for name, preserve in (
        ("lwf", {"name": "lwf"}),
        ("lwf_initial", {"name": "lwf", "teacher": "initial"}),
        ("zscl", {"name": "zscl"}),
        ("zscl_deployed", {"name": "zscl", "teacher": "deployed"}),
    ):
        project.write(name, method={"preserve": preserve, **merged})
    project.write("plain", method=merged)
    theta = "backbones/toy"
    for name, teacher in (
        ("lwf", "lwf/deployed_001"),
        ("lwf_initial", theta),
        ("zscl", theta),
        ("zscl_deployed", "zscl_deployed/deployed_001"),
    ):
        plain = {key.replace("plain/", f"{name}/") for key in inputs(project, "plain", 2)}
        assert set(inputs(project, name, 2)) == plain | {teacher}
        assert set(inputs(project, name, 1)) == set(inputs(project, "plain", 1)), "θ₀ is the start"


def test_what_looks_at_probabilities_has_those_of_the_loss_in_its_recipe(project: Any) -> None:
    """With CLIP's loss recipes stay as they were, and so do those of what looks at none."""

    def declared(name: str, loss: dict[str, Any]) -> dict[str, Any]:
        theta = project.load().experiment.backbone.model_dump(mode="json", exclude_none=True)
        settings: dict[str, Any] = {"name": name}
        backbone = {**theta, "architecture": theta["architecture"] | {"init_logit_bias": -10}}
        if name == "transfer":
            settings["teacher"] = backbone | {"name": "t"}
        project.write("tried", backbone=backbone, loss=loss, method={"preserve": settings})
        recipe: dict[str, Any] = project.graph("tried").nodes["tried/trained_002"].declared
        return recipe

    of_likelihood = {"ewc", "lwf", "zscl", "der", "derpp", "transfer"}
    for name in (*sorted(of_likelihood), "l2", "si", "mas", "er"):
        assert "likelihood" not in declared(name, {"label_smoothing": 0.1}), name
        marked = declared(name, {"name": "siglip"}).get("likelihood")
        assert marked == ("sigmoid" if name in of_likelihood else None), name


def test_a_loss_that_needs_a_bias_is_refused_where_the_architecture_has_none(project: Any) -> None:
    theta = project.load().experiment.backbone.model_dump(mode="json", exclude_none=True)
    biased = {**theta, "architecture": theta["architecture"] | {"init_logit_bias": -10}}
    trained_so = {**theta, "pretraining": theta["pretraining"] | {"loss": {"name": "siglip"}}}
    taught = {"preserve": {"name": "transfer", "teacher": theta | {"name": "t"}}}
    for changes, of in (
        ({"loss": {"name": "siglip"}}, "toy"),
        ({"backbone": trained_so}, "toy"),
        ({"backbone": biased, "loss": {"name": "siglip"}, "method": taught}, "t"),
    ):
        project.write("biasless", **changes)
        with pytest.raises(InputError, match=f"siglip.* of {of} has no init_logit_bias"):
            project.load("biasless")
    project.write("with_bias", backbone=biased, loss={"name": "siglip"})
    project.load("with_bias")


def test_zscl_needs_reference_rows_and_with_adapters_no_pull(project: Any) -> None:
    without = {"update": 0.5, "buffer": 0.5, "pretraining": 0}
    project.write("unfed", method={"preserve": {"name": "zscl"}}, mixture=without)
    with pytest.raises(InputError, match=r"zscl needs .* pretraining pool .* is 0"):
        project.load("unfed")
    lora = {"name": "lora", "rank": 2, "preserve": {"name": "zscl"}}
    project.write("pulled", method=lora)
    with pytest.raises(InputError, match="zscl anchors"):
        project.load("pulled")
    project.load("pulled", "method.preserve.l2=0")


def test_what_a_stage_leaves_is_an_input_of_the_next_and_the_first_has_no_penalty(
    finished_project: Any,
) -> None:
    project = finished_project

    def write(**changes: Any) -> None:
        preserve = {"name": "ewc", **changes}  # its estimate is of more than a chunk has
        merged = {"start_from": "deployed", "merge": {"technique": "interpolation"}}
        project.write("held", method={**merged, "preserve": preserve})

    def planned() -> set[str]:
        return {entry.asset for entry in resolve_request("held", []).plan() if entry.compute}

    write()
    assert "held/trained_001" in inputs(project, "held", 2)
    assert "held/deployed_001" in inputs(project, "held", 2)
    run_experiment("held", [])
    stored = {}
    for kind in ("trained", "deployed"):
        for stage in (1, 2):
            head = project.home.heads.read(f"held/{kind}_{stage:03d}").artifacts["only"]
            stored[kind, stage] = project.home.store.open(*head)
    recipe = stored["trained", 2].manifest["recipe"]
    assert recipe["inputs"]["carried"] == stored["trained", 1].digest
    assert recipe["inputs"]["start"] == stored["deployed", 1].digest
    assert CARRIED in stored["trained", 1].manifest["files"]
    assert "carried" not in stored["trained", 1].manifest["recipe"]["inputs"]
    every = {f"held/{kind}_{stage:03d}" for kind in ("trained", "deployed") for stage in (1, 2, 3)}
    write(strength=2.0)  # there is nothing yet that it could act on at the first stage
    assert planned() & every == every - {"held/trained_001", "held/deployed_001"}
    write(samples=4)
    assert planned() & every == every


@pytest.mark.parametrize(("preserve", "steps"), [
    ({"name": "ewc", "samples": 7, "batch_size": 3}, 2),
    ({"name": "mas", "samples": 5}, 5),
])  # fmt: skip
def test_an_estimate_at_a_stage_s_end_tells_how_far_it_is(
    finished_project: Any, preserve: dict[str, Any], steps: int
) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int, detail: str = "") -> None:
        told.append((what, done, total))

    finished_project.write("held", method={"preserve": preserve})
    callbacks = Callbacks(progress=tell)
    context = RunContext(finished_project.graph("held"), finished_project.home, callbacks=callbacks)
    materialise("held/trained_001", context)
    assert [of for of in told if of[0] == "training"] == [("training", n, 2) for n in (1, 2)]
    assert told[-steps:] == [("estimate", n + 1, steps) for n in range(steps)]


@pytest.mark.parametrize("name", ["ewc", "si", "mas"])
def test_what_goes_on_from_stage_to_stage_cannot_begin_each_at_theta_0(
    project: Any, name: str
) -> None:
    project.write("anew", method={"start_from": "initial", "preserve": {"name": name}})
    with pytest.raises(
        InputError, match=rf"{name} is carried .* start_from: initial .* use trained"
    ):
        project.load("anew")
    project.write("adapted", method={"name": "lora", "rank": 2, "preserve": {"name": name}})
    with pytest.raises(
        InputError, match=rf"{name} anchors the model's weights.* use it with finet"
    ):
        project.load("adapted")


@pytest.mark.parametrize("name", ["ewc", "si", "mas"])
def test_the_first_stage_depends_on_nothing_that_acts_on_what_was_carried(
    project: Any, name: str
) -> None:
    declared = []
    for strength in (1.0, 2.0):
        project.write("held", method={"preserve": {"name": name, "strength": strength}})
        nodes = project.graph("held").nodes
        declared.append([nodes[f"held/trained_{stage:03d}"].declared for stage in (1, 2)])
        assert set(nodes["held/trained_002"].inputs) == set(nodes["held/trained_001"].inputs) - {
            "backbones/toy"
        } | {"held/trained_001", "streams/toy/chunk_002"}
    assert declared[0][0] == declared[1][0]
    assert declared[0][1] != declared[1][1]


def test_a_preservation_that_does_not_go_with_the_method_is_refused(project: Any) -> None:
    preserve = {"name": "l2", "to": "start"}
    project.write("held", method={"name": "lora", "rank": 2, "preserve": preserve})
    with pytest.raises(
        InputError, match=r"l2 anchors .* lora trains adapters .* use it with finet"
    ):
        project.load("held")
    project.write("misspelt", method={"preserve": {"name": "l3"}})
    with pytest.raises(InputError, match=r"l3.*l2"):
        project.load("misspelt")
