"""Merges by statistics over time: what these depend on and are, and the merge."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import CARRIED, STATISTICS, WEIGHTS
from fomo_dagster.graph.work.statistics import queries_of_others, seen_layers

TRAINED = [f"toy/trained_{stage:03d}" for stage in (1, 2, 3)]
FISHERS = [f"toy/fisher_{stage:03d}" for stage in (1, 2, 3)]
DEPLOYED = [f"toy/deployed_{stage:03d}" for stage in (2, 3)]
CHUNKS = [f"streams/toy/chunk_{stage:03d}" for stage in (1, 2, 3)]
INPUTS = [f"toy/inputs_{stage:03d}" for stage in (1, 2, 3)]
KINDS = ("trained", "fisher", "inputs", "deployed", "start")
ESTIMATE = "samples: 8, batch_size: 4"


def method(rules="deploy: joint", technique="fisher", **further):
    parameters = "".join(f", {name}: {value}" for name, value in further.items())
    return f"method={{{rules}, merge: {{technique: {technique}, {ESTIMATE}{parameters}}}}}"


def foreseen(graph, home):
    entries = plan(graph.nodes.values(), RunContext(graph, home))
    return {e.asset: e for e in entries if e.compute and graph.nodes[e.asset].kind in KINDS}


def make(graph, home):
    context = RunContext(graph, home)
    nodes = [node for node in graph.nodes.values() if node.kind in KINDS]
    return {node.key for node in nodes if materialise(node.key, context).computed}


def tensors(graph, home, key, file):
    return load_file(RunContext(graph, home).artifact(key).path(file))


def test_statistics_are_there_for_what_is_merged_alone(project):
    nodes = project.graph("toy", method()).nodes
    assert nodes[DEPLOYED[1]].inputs == (*TRAINED, *FISHERS)
    assert [nodes[key].inputs for key in FISHERS] == list(zip(TRAINED, CHUNKS, strict=True))
    nodes = project.graph("toy", method("start_from: joint, deploy: trained")).nodes
    assert nodes["toy/start_003"].inputs == (*TRAINED[:2], *FISHERS[:2])
    assert FISHERS[2] not in nodes
    nodes = project.graph("toy", "method={combination: offline_merge}").nodes
    assert not [key for key in nodes if "fisher" in key]


@pytest.mark.parametrize(
    "rules",
    [
        "deploy: with_previous",
        "deploy: fold",
        "start_from: fold, deploy: joint",
        "deploy: joint, joint: {include_initial: true}",
    ],
)
def test_merges_with_what_has_no_statistics_are_refused(project, rules):
    with pytest.raises(
        InputError, match=r"fisher needs statistics .*: merge trained weights alone"
    ):
        project.load("toy", method(rules))


def test_a_merge_by_fisher_information_trains_nothing_again(finished_project):
    home = finished_project.home
    graph = finished_project.graph("toy", method())
    assert foreseen(graph, home).keys() == {*FISHERS, *DEPLOYED}
    assert make(graph, home) == {*FISHERS, *DEPLOYED}
    assert make(graph, home) == set()
    assert home.heads.read(FISHERS[0]).cost["flops"] > 0

    floor = graph.nodes[DEPLOYED[1]].technique.floor
    models = [tensors(graph, home, key, WEIGHTS) for key in TRAINED]
    fishers = [tensors(graph, home, key, STATISTICS) for key in FISHERS]
    for name, found in tensors(graph, home, DEPLOYED[1], WEIGHTS).items():
        by = [fisher[name].double().clamp(min=floor) for fisher in fishers]
        wanted = sum(f * m[name] for f, m in zip(by, models, strict=True)) / sum(by)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)
    kernel = fishers[0]["visual.conv1.weight"]
    assert (kernel > 100 * floor).double().mean() > 0.5  # or it would be a plain mean
    for fisher in fishers:
        real = torch.cat([t.double().reshape(-1) for t in fisher.values() if t.is_floating_point()])
        assert real.square().mean().sqrt() == pytest.approx(1, rel=1e-4)

    other = finished_project.graph("toy", method(floor=1e-3))
    assert foreseen(other, home).keys() == set(DEPLOYED)
    weighed = finished_project.graph("toy", method("deploy: joint, joint: {weighting: linear}"))
    assert foreseen(weighed, home).keys() == set(DEPLOYED)


@pytest.mark.usefixtures("uncounted")
def test_statistics_are_the_fisher_information_that_ewc_leaves(finished_project):
    """The first stage of EWC trains as without it."""
    home = finished_project.home
    graph = finished_project.graph("toy", method())
    materialise(FISHERS[0], RunContext(graph, home))
    found = tensors(graph, home, FISHERS[0], STATISTICS)
    weights = tensors(graph, home, TRAINED[0], WEIGHTS)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in weights.items()}
    ewc = finished_project.graph("toy", f"method={{preserve: {{name: ewc, {ESTIMATE}}}}}")
    materialise(TRAINED[0], RunContext(ewc, home))
    left = tensors(ewc, home, TRAINED[0], CARRIED)
    again = tensors(ewc, home, TRAINED[0], WEIGHTS)
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    assert left.keys() == found.keys()
    every = torch.cat([tensor.double().reshape(-1) for tensor in left.values()])
    scale = every.square().mean().sqrt()
    for name, tensor in left.items():
        torch.testing.assert_close(found[name].double() * scale, tensor.double(), rtol=1e-5, atol=0)


def _shrunk(moments):
    return 0.9 * moments.double() + 0.1 * moments.double().diag().diag()


def test_a_merge_by_what_layers_saw_solves_their_regression(finished_project):
    home = finished_project.home
    graph = finished_project.graph("toy", method(technique="regmean"))
    assert foreseen(graph, home).keys() == {*INPUTS, *DEPLOYED}
    assert make(graph, home) == {*INPUTS, *DEPLOYED}
    assert make(graph, home) == set()
    assert home.heads.read(INPUTS[0]).cost["flops"] > 0
    models = [tensors(graph, home, key, WEIGHTS) for key in TRAINED]
    seen = [tensors(graph, home, key, STATISTICS) for key in INPUTS]
    layers = {name for name in models[0] if name.endswith(("mlp.c_fc.weight", "in_proj_weight"))}
    assert layers < seen[0].keys() < models[0].keys()
    assert not [name for name in seen[0] if "out_proj" in name]
    merged = tensors(graph, home, DEPLOYED[1], WEIGHTS)
    for name in layers:
        below = sum(_shrunk(one[name]) for one in seen)
        above = sum(
            _shrunk(one[name]) @ model[name].double().T
            for one, model in zip(seen, models, strict=True)
        )
        wanted = torch.linalg.solve(below, above).T
        torch.testing.assert_close(merged[name].double(), wanted, rtol=1e-3, atol=1e-4)
    other = finished_project.graph("toy", method(technique="regmean", off_diagonal=0.5))
    assert foreseen(other, home).keys() == set(DEPLOYED)


class Block(nn.Module):
    """Attention to itself, and from a query to what there is."""

    def __init__(self):
        super().__init__()
        self.own = nn.MultiheadAttention(4, 2, batch_first=True)
        self.pooling = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mlp = nn.Linear(4, 3)

    def forward(self, tokens):
        query = tokens[:, :1]
        seen, _ = self.own(tokens, tokens, tokens, need_weights=False)
        pooled, _ = self.pooling(query, seen, seen, need_weights=False)
        return self.mlp(pooled)


def test_layers_whose_inputs_are_not_one_are_told_apart():
    block = Block()
    layers = seen_layers(block)
    assert layers.keys() == {"own.in_proj_weight", "pooling.in_proj_weight", "mlp.weight"}
    with queries_of_others(layers) as of_others:
        block(torch.randn(2, 5, 4))
    assert of_others == {"pooling.in_proj_weight"}
