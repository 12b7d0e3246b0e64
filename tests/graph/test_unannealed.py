"""Stages that go on from the weights before the anneal, and deploy those after it."""

import pytest
import torch
from safetensors.torch import load_file

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import UNANNEALED, UNANNEALED_ADAPTERS, WEIGHTS
from fomo_dagster.progress import Callbacks

pytestmark = pytest.mark.slow

WSD = {"name": "wsd", "warmup": 0, "cooldown": 2, "recovery": "continued"}
STAGES = (1, 2, 3)


def files_of(project, key):
    return project.home.store.open(*project.home.heads.read(key).artifacts[ONLY])


def weights_of(project, key, name=WEIGHTS):
    return load_file(files_of(project, key).path(name))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def close(left, right):
    return all(torch.allclose(left[n], right[n], rtol=1e-5, atol=1e-6) for n in right)


def write(project, experiment, steps, schedule=WSD, **method):
    method = {"start_from": "unannealed", **method}
    project.write(experiment, method=method, schedule=schedule, budget={"steps": steps})


def test_a_stage_leaves_what_the_constant_rate_alone_would_have_given(project):
    """Four steps and two of anneal: the weights left are those of a stage of four."""
    write(project, "toy", 6)
    constant = {"name": "constant", "warmup": 0}
    project.write("plain", schedule=constant, budget={"steps": 4})
    for name in ("toy", "plain"):
        run_experiment(name, [])
    left = weights_of(project, "toy/trained_001", UNANNEALED)
    deployed = weights_of(project, "toy/trained_001")
    assert left.keys() == deployed.keys()
    assert close(left, weights_of(project, "plain/trained_001"))
    assert not close(left, deployed)
    # so the second stage, too, is that of the run that never anneals
    assert close(
        weights_of(project, "toy/trained_002", UNANNEALED), weights_of(project, "plain/trained_002")
    )
    assert UNANNEALED not in files_of(project, "plain/trained_001").manifest["files"]


@pytest.mark.parametrize("adapters", ["persist", "merge_each_stage"])
def test_adapters_go_on_from_before_the_anneal(project, adapters):
    lora = {"name": "lora", "rank": 2, "adapters": adapters}
    write(project, "toy", 6, **lora)
    project.write(
        "plain", schedule={"name": "constant", "warmup": 0}, budget={"steps": 4}, method=lora
    )
    for name in ("toy", "plain"):
        run_experiment(name, [])
    name, other = {
        "persist": (UNANNEALED_ADAPTERS, "adapters.safetensors"),
        "merge_each_stage": (UNANNEALED, WEIGHTS),
    }[adapters]
    for stage in (1, 2):
        key = f"trained_{stage:03d}"
        plain = weights_of(project, f"plain/{key}", other)
        assert close(weights_of(project, f"toy/{key}", name), plain)
        assert not close(weights_of(project, f"toy/{key}", other), plain)


def test_merges_take_what_is_deployed_and_no_training_takes_the_merges(project):
    write(project, "toy", 4)
    write(project, "merged", 4, merge={"technique": "interpolation", "weight": 0.5})
    for name in ("toy", "merged"):
        run_experiment(name, [])
    for stage in STAGES:
        key = f"trained_{stage:03d}"
        assert same(weights_of(project, f"merged/{key}"), weights_of(project, f"toy/{key}"))
    before, trained, deployed = (
        weights_of(project, f"merged/{key}")
        for key in ("deployed_001", "trained_002", "deployed_002")
    )
    for name, tensor in deployed.items():
        if tensor.is_floating_point():
            mean = (before[name].double() + trained[name].double()) / 2
            assert torch.allclose(tensor.double(), mean, rtol=1e-5, atol=1e-7), name


def test_the_plan_says_where_stages_start_and_what_was_trained_otherwise_stays(
    finished_project,
):
    write(finished_project, "toy", 4)
    graph, said = finished_project.graph(), []
    context = RunContext(graph, finished_project.home, callbacks=Callbacks(warn=said.append))
    planned = {entry.asset for entry in plan(graph.nodes.values(), context) if entry.compute}
    assert {f"toy/trained_00{stage}" for stage in STAGES} <= planned
    assert said == [
        "each stage of toy starts from the weights that the stage before had ahead of its anneal "
        "(method.start_from: unannealed), and deploys annealed ones"
    ]
    finished_project.write("plain")
    planned = {entry.asset for entry in resolve_request("plain", []).plan() if entry.compute}
    assert not any("trained" in asset for asset in planned)  # as it was made for the first toy


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "cosine"}, "schedule.name is cosine, and it has no anneal: take infinite, wsd"),
        ({"name": "wsd", "cooldown": 0}, "schedule.cooldown is 0: take a schedule.cooldown above"),
        ({"name": "infinite", "annealing": 0}, "schedule.annealing is 0"),
        ({"name": "wsd", "warmup": 0, "cooldown": 4}, "takes all 4 steps of a stage"),
    ],
)
def test_a_schedule_without_an_anneal_is_refused(project, schedule, message):
    write(project, "toy", 4, schedule)
    with pytest.raises(InputError, match=message):
        project.load()
