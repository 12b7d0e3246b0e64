"""Weights that are stored in bf16 are those that training gave, rounded, wherever they are used."""

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import DataError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.models.backbones import save


def weights_of(project, key):
    address = project.home.heads.read(key).artifacts[ONLY]
    return project.home.store.open(*address).path(WEIGHTS)


def test_stages_start_from_what_was_stored(finished_project, tmp_path):
    project = finished_project
    whole = [weights_of(project, f"toy/trained_00{stage}") for stage in (1, 2)]
    project.write("toy", stored_precision="bf16")
    run_experiment("toy", [])
    halves = [weights_of(project, f"toy/trained_00{stage}") for stage in (1, 2)]
    first, second = (load_file(path) for path in halves)
    for name, tensor in load_file(whole[0]).items():
        expected = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        assert torch.equal(first[name], expected), name
    assert halves[0].stat().st_size < 0.6 * whole[0].stat().st_size
    others = load_file(whole[1])
    assert any(
        not torch.equal(tensor, others[name].to(tensor.dtype)) for name, tensor in second.items()
    )  # it started from rounded ones
    model = load_weights(project.load().experiment.backbone, halves[0])
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    (tmp_path / "out").mkdir()
    exported = tmp_path / "out" / "model.safetensors"
    done = CliRunner().invoke(app, ["export", "toy", str(exported)])
    assert done.exit_code == 0, done.output
    last = load_file(weights_of(project, "toy/trained_003"))
    for name, tensor in load_file(exported).items():
        assert torch.equal(tensor, last[name].to(tensor.dtype)), name


def test_merges_take_what_was_stored(project):
    merge = {"technique": "interpolation", "weight": 0.5}
    project.write(
        "toy", stored_precision="bf16", method={"combination": "ema_merge", "merge": merge}
    )
    run_experiment("toy", [])
    theta, trained, deployed = (
        load_file(weights_of(project, key))
        for key in ("backbones/toy", "toy/trained_001", "toy/deployed_001")
    )
    for name, tensor in deployed.items():
        if tensor.is_floating_point():
            expected = (theta[name].double() + trained[name].double()) / 2
            assert tensor.dtype == torch.float32
            assert torch.allclose(tensor.double(), expected, atol=1e-6), name


def test_weights_that_are_none_in_bf16_are_refused(tmp_path):
    with pytest.raises(DataError, match="not finite: a"):
        save({"a": torch.tensor([3.4e38])}, tmp_path / "w.safetensors", "bf16")
    save({"a": torch.tensor([3.4e38])}, tmp_path / "w.safetensors")
