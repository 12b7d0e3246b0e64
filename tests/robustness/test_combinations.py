"""What is declared together, through whole trainings of the toy: losses, selection, adapters,
preservation, precision, loaders, and ways to run that a killed training must resume alike."""

import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.training.learner import Learner

pytestmark = pytest.mark.usefixtures("uncounted")

STREAM = {"name": "toy_2", "datasets": ["birds", "cats"], "stages": 2}
LORA = {"name": "lora", "rank": 2}


@pytest.fixture
def selections(small_backbone):
    return {
        "random": {"name": "random", "share": 0.5},
        "learnability": {"name": "learnability", "share": 0.5, "reference": small_backbone},
    }


class KilledError(Exception):
    """What a process that is killed would not live to raise."""


def trained(project, home=None, execution=None, **changes):
    """The artifacts of both stages' trainings."""
    execution = {"device": "cpu", **(execution or {})}
    project.write("tried", stream=STREAM, execution=execution, **changes)
    graph, home = project.graph("tried"), home or project.home
    run_context = RunContext(graph, home)
    for node in graph.of("tried"):
        if node.kind not in ("evaluation", "scores", "leaderboard"):
            materialise(node.key, run_context)
    heads = [home.heads.read(f"tried/trained_{stage:03d}") for stage in (1, 2)]
    return [home.store.open(*head.artifacts[ONLY]) for head in heads]


def weights(artifact):
    return load_file(artifact.path("weights.safetensors"))


def differ(one, other):
    return any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_loss_is_part_of_what_a_stage_is_and_its_bias_goes_on(finished_project):
    project = finished_project
    backbone = project.load().experiment.backbone.model_dump(mode="json", exclude_none=True)
    backbone["architecture"] |= {"init_logit_bias": -10.0}
    losses = {"clip": {}, "smoothed": {"label_smoothing": 0.2}, "siglip": {"name": "siglip"}}
    made = {
        name: trained(project, backbone=backbone, loss=loss, optimiser={"learning_rate": 1e-2})
        for name, loss in losses.items()
    }
    for stage in (0, 1):
        assert len({made[name][stage].digest for name in losses}) == len(losses)
        assert differ(weights(made["clip"][stage]), weights(made["smoothed"][stage]))
    biases = [float(weights(artifact)["logit_bias"]) for artifact in made["siglip"]]
    assert len({-10.0, *biases}) == 3, "learnt at each stage, from where the one before left it"
    assert abs(biases[1] - biases[0]) < 0.1, "and not from where it began anew"
    assert {float(weights(artifact)["logit_bias"]) for artifact in made["clip"]} == {-10.0}


def test_a_selection_goes_with_adapters_and_loaders_change_nothing(finished_project, selections):
    changes = {"selection": selections["learnability"], "method": LORA}
    alone = trained(finished_project, **changes)
    assert "adapters.safetensors" in alone[1].manifest["files"]
    others = Home(finished_project.root / "other")
    loaded = trained(finished_project, others, {"workers": 1}, **changes)
    for one, other in zip(alone, loaded, strict=True):
        assert one.digest == other.digest
        assert not differ(weights(one), weights(other))
    every = trained(finished_project, method=LORA)
    assert differ(weights(every[0]), weights(alone[0]))


@pytest.mark.parametrize(("selection", "precision"), [("learnability", "bf16"), ("random", "fp16")])
def test_a_selection_goes_with_lower_precision(finished_project, selections, selection, precision):
    lower = trained(finished_project, selection=selections[selection], precision=precision)
    full = trained(finished_project, selection=selections[selection])
    for one, other in zip(lower, full, strict=True):
        assert one.digest != other.digest
        assert all(bool(tensor.isfinite().all()) for tensor in weights(one).values())
    assert differ(weights(lower[0]), weights(full[0]))


@pytest.mark.parametrize("name", ["lwf", "zscl", "transfer"])
def test_adapters_learn_from_a_teacher_too(finished_project, small_backbone, name):
    others = {"zscl": {"l2": 0}, "transfer": {"teacher": small_backbone}}
    preserve = {"name": name, **others.get(name, {})}
    plain = trained(finished_project, method=LORA)
    taught = trained(finished_project, method={**LORA, "preserve": preserve})
    theta = finished_project.home.heads.read("backbones/toy").artifacts[ONLY]
    start = weights(finished_project.home.store.open(*theta))
    for one, other in zip(plain, taught, strict=True):
        assert "adapters.safetensors" in other.manifest["files"]
        assert differ(weights(one), weights(other))
        steps = pl.read_parquet(other.path("training_steps.parquet"))
        assert steps["preservation_loss"].is_finite().all()
    assert torch.equal(weights(taught[1])["logit_scale"], start["logit_scale"])
    assert (steps["preservation_loss"] > 0).any()


@pytest.mark.parametrize("way", ["gradient_checkpointing", "compile"])
def test_a_killed_training_resumes_alike_however_it_runs(
    finished_project, tmp_path, monkeypatch, way
):
    if way == "compile":
        # Of torch's compiler the last part alone, which makes machine code and takes a minute, is
        # left out.
        compile_graph = torch.compile

        def quickly(function, dynamic=None, options=None):
            return compile_graph(function, dynamic=dynamic, backend="aot_eager")

        monkeypatch.setattr(torch, "compile", quickly)
    execution, budget = {way: True, "resume_seconds": 1e-9}, {"steps": 3}
    killed = Home(shutil.copytree(finished_project.home.root, tmp_path / "killed"))
    whole = trained(finished_project, execution=execution, budget=budget)
    step, steps = Learner.step, iter(range(6))

    def killing(learner, *arguments):
        if next(steps) == 4:
            raise KilledError
        return step(learner, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", killing)
        with pytest.raises(KilledError):
            trained(finished_project, killed, execution, budget=budget)
    assert list(killed.resume_points.glob("*/resume.pt"))
    resumed = trained(finished_project, killed, execution, budget=budget)
    for one, other in zip(whole, resumed, strict=True):
        assert one.digest == other.digest
        assert not differ(weights(one), weights(other))
