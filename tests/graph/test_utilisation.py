"""How much of its devices a training used stands beside its steps, and is no content of theirs."""

import pytest

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.graph.work import stage
from fomo_dagster.graph.work.checkpoints import SPEED, steps_of
from fomo_dagster.tables.views import query

_OF_A_STEP, _PEAK = 3 * 10**9, 6e12


def test_it_is_in_the_table_where_the_peak_is_known(project, monkeypatch):
    monkeypatch.setattr(stage, "peak_of_all", lambda *_: _PEAK)
    monkeypatch.setattr(stage, "training_flops", lambda *_: {"flops_per_step": _OF_A_STEP})
    run_experiment("toy", ["stream.stages=1"])
    steps = query(project.home.root, "FROM training_steps WHERE stage = 1")
    rows = steps["update_samples"] + steps["buffer_samples"] + steps["pretraining_samples"]
    expected = steps["samples_per_second"] / rows * _OF_A_STEP / _PEAK
    assert steps["flops_utilisation"].to_list() == pytest.approx(expected.to_list())
    head = project.home.heads.read("toy/trained_001")
    trained = project.home.store.open(*head.artifacts["only"])
    assert "flops_per_step" not in trained.cost
    assert not any("utilisation" in name for name in trained.manifest["files"])

    trained.record(SPEED).unlink()  # nobody needs it
    assert steps_of(trained)["flops_utilisation"].null_count() == steps.height
