"""Adapters through the stages of an experiment."""

import pytest
import torch
from safetensors.torch import load_file

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.models import backbones

pytestmark = pytest.mark.usefixtures("uncounted")

WEIGHT = "visual.transformer.resblocks.0.attn.in_proj_weight"


def artifact(project, name, stage):
    kind, digest = project.home.heads.read(f"{name}/trained_{stage:03d}").artifacts["only"]
    return project.home.store.open(kind, digest)


def rank(matrix):
    values = torch.linalg.svdvals(matrix.double())
    return int((values > 1e-2 * values[0]).sum())


def test_adapters_persist_or_are_merged_and_what_is_stored_is_plain_openclip(finished_project):
    project = finished_project
    theta = load_file(
        project.home.store.open(*project.home.heads.read("backbones/toy").artifacts["only"]).path(
            "weights.safetensors"
        )
    )
    stages = {}
    for mode in ("persist", "merge_each_stage"):
        method = {"name": "lora", "rank": 1, "adapters": mode, "targets": ["query"]}
        project.write(mode, method=method, stream={"datasets": ["birds", "cats"], "stages": 2})
        run_experiment(mode, [])
        stages[mode] = [artifact(project, mode, stage) for stage in (1, 2)]
    for artifacts in stages.values():
        for stored in artifacts:
            path = stored.path("weights.safetensors")
            architecture = project.load().experiment.backbone.architecture
            module = backbones.load(architecture, path).module
            assert module.state_dict().keys() == theta.keys()

    def query(stored):
        return load_file(stored.path("weights.safetensors"))[WEIGHT][:16]

    first, second = stages["persist"]
    adapters = [load_file(stored.path("adapters.safetensors")) for stored in (first, second)]
    layer = "visual.transformer.resblocks.0.attn.query.lora_"
    for stored, tensors in zip((first, second), adapters, strict=True):
        product = tensors[f"{layer}B.default.weight"] @ tensors[f"{layer}A.default.weight"]
        torch.testing.assert_close(query(stored), theta[WEIGHT][:16] + product, rtol=0, atol=1e-6)
    down = [tensors[f"{layer}A.default.weight"] for tensors in adapters]
    assert not torch.equal(*down)
    assert float((down[1] - down[0]).abs().max()) < 0.01  # it went on, and did not begin anew
    recipe = second.manifest["recipe"]
    assert recipe["inputs"]["base"] != recipe["inputs"]["start"]
    assert "base" not in first.manifest["recipe"]["inputs"]

    first, second = stages["merge_each_stage"]
    assert "adapters.safetensors" not in second.manifest["files"]
    assert rank(query(second) - query(first)) == 1
    assert rank(query(second) - theta[WEIGHT][:16]) == 2  # of two stages' adapters
    assert "base" not in second.manifest["recipe"]["inputs"]
