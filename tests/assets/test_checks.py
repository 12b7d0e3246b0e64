"""Asset checks on real data: each passes and fails when it should, and blocking ones block."""

import json
import shutil

import dagster as dg
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.building import build_assets
from assets.checks import checks_of
from assets.specs import key_of
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.summaries.scores import SCORES
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from resources.run_contexts import RunContexts


def outcome_of(project, key):
    """What materialising an asset that is there gives: hits."""
    request = resolve_request("toy", [])
    context = RunContext(request.graph, project.home)
    return context, request.graph.nodes[key], materialise(key, context)


def results_of(project, key):
    context, node, outcome = outcome_of(project, key)
    return {result.check_name: result for result in checks_of(node, outcome, context)}


def run(project, *keys):
    """A run of some assets, as the UI would start it."""
    request = resolve_request("toy", [])
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            build_assets(request.graph),
            selection=dg.AssetSelection.assets(*map(key_of, keys)),
            resources={"run_contexts": RunContexts.of(project.home)},
            instance=instance,
            raise_on_error=False,
        )


def test_every_check_of_a_finished_project_passes(finished_project):
    for key in ("shards/birds", "backbones/toy", "toy/trained_002", "toy/scores",
                "toy/evaluation_001"):  # fmt: skip
        results = results_of(finished_project, key)
        assert results
        assert all(result.passed for result in results.values()), key


def test_classes_with_one_row_of_tokens_warn(finished_project):
    for split in ("train", "test"):
        folder = finished_project.root / "images/birds" / split
        (folder / "wren").rename(folder / "Robin")
    done = run(finished_project, "shards/birds", "toy/evaluation_000")
    assert done.success
    [found] = [
        e for e in done.get_asset_check_evaluations() if e.check_name == "classes_told_apart"
    ]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["alike"].value == {"birds": [["Robin", "robin"]]}


def test_a_dataset_of_one_class_warns_and_keeps_its_score(finished_project):
    for split in ("train", "test"):
        folder = finished_project.root / "images/cats" / split
        shutil.rmtree(folder / "lynx")
    done = run(finished_project, "shards/cats", "toy/evaluation_000")
    assert done.success
    found = {e.check_name: e for e in done.get_asset_check_evaluations()}
    assert found["classes_told_apart"].passed
    told = found["scores_tell_models_apart"]
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert list(told.metadata) == ["cats"]
    assert told.metadata["cats"].value.startswith("dataset 'cats' has one class alone, 'lion', so")
    shown = done.asset_materializations_for_node("toy__evaluation_000")[0].metadata
    assert shown["score_cats"].value == 100


def break_image(project):
    path = project.root / "images/birds/train/crow/0.png"
    path.write_bytes(path.read_bytes()[:60])


def allow_unreadable(project, share):
    path = project.root / "datasets/toy.yaml"
    path.write_text(path.read_text().replace("birds:\n", f"birds:\n  unreadable_limit: {share}\n"))


def test_an_unreadable_image_within_the_limit_warns_and_stops_nothing(finished_project):
    break_image(finished_project)
    allow_unreadable(finished_project, 0.1)
    done = run(finished_project, "shards/birds", "streams/toy/chunk_002")
    assert done.success
    [found] = [e for e in done.get_asset_check_evaluations() if e.check_name == "readable_images"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["unreadable"].value == 1
    materialised = {e.asset_key.to_user_string() for e in done.get_asset_materialization_events()}
    assert materialised == {"shards/birds", "streams/toy/chunk_002"}


def test_unreadable_images_above_the_limit_stop_the_run_before_anything_follows(finished_project):
    break_image(finished_project)
    allow_unreadable(finished_project, 0.01)
    done = run(finished_project, "shards/birds", "streams/toy/chunk_002")
    assert not done.success
    assert done.get_asset_materialization_events() == []


def test_a_limit_that_was_lowered_after_sharding_blocks_what_follows(finished_project):
    """The shards are a hit then, so that only the check stands between them and a training."""
    break_image(finished_project)
    allow_unreadable(finished_project, 0.1)
    assert run(finished_project, "shards/birds").success
    path = finished_project.root / "datasets/toy.yaml"
    path.write_text(path.read_text().replace("unreadable_limit: 0.1", "unreadable_limit: 0.01"))
    done = run(finished_project, "shards/birds", "streams/toy/chunk_002")
    assert not done.success
    [found] = [e for e in done.get_asset_check_evaluations() if e.check_name == "readable_images"]
    assert found.severity is dg.AssetCheckSeverity.ERROR
    materialised = {e.asset_key.to_user_string() for e in done.get_asset_materialization_events()}
    assert materialised == {"shards/birds"}


def test_a_concept_with_test_samples_alone_fails_the_check_of_a_dataset_trained_on(
    finished_project,
):
    finished_project.add_image("birds", "test", "emu", 1001)
    assert run(finished_project, "shards/birds").success
    result = results_of(finished_project, "shards/birds")["no_empty_concepts"]
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.metadata["without_training_samples"].value == "emu"


def alter(outcome, name, change):
    """Let an artifact's file be another one, with the store none the wiser."""
    path = outcome.artifacts[ONLY].path(name)
    change(path)
    return path


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_fail_the_check_and_are_named(finished_project, bad):
    context, node, outcome = outcome_of(finished_project, "toy/trained_001")

    def spoil(path):
        weights = load_file(path)
        weights["logit_scale"] = torch.tensor(bad)
        save_file(weights, path)

    alter(outcome, WEIGHTS, spoil)
    [result] = checks_of(node, outcome, context)
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert result.metadata["not_finite"].value == "logit_scale"


def test_weights_that_are_not_finite_block_the_next_stage_of_the_same_run(
    finished_project, monkeypatch
):
    monkeypatch.setattr("fomo_dagster.models.finite.not_finite", lambda path: ["logit_scale"])
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    done = run(finished_project, "toy/trained_001", "toy/evaluation_001", "toy/trained_002")
    assert not done.success
    materialised = {e.asset_key.to_user_string() for e in done.get_asset_materialization_events()}
    assert materialised == {"toy/trained_001"}


@pytest.mark.parametrize(
    ("retention", "falls"),
    [
        ([50.0, 46.0, 44.0, 43.0], "none"),  # 8%, 4%, 2%
        ([50.0, 44.0, 44.0, 30.0], "stage 1: 12.0%, stage 3: 31.8%"),
        ([50.0, 60.0, 60.0, 60.0], "none"),
        ([0.0, 0.0, 10.0, 0.0], "stage 3: 100.0%"),
        ([None, None, None, None], "none"),
    ],
)
def test_the_fall_of_zero_shot_retention_in_one_stage_warns_above_the_limit(
    finished_project, retention, falls
):
    context, node, outcome = outcome_of(finished_project, "toy/scores")

    def spoil(path):
        scores = pl.read_parquet(path)
        scores.with_columns(
            zero_shot_retention=pl.Series(retention, dtype=pl.Float64)
        ).write_parquet(path)

    alter(outcome, SCORES, spoil)
    [result] = checks_of(node, outcome, context)
    assert result.passed == (falls == "none")
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.metadata["falls"].value == falls
    assert json.loads(str(result.metadata["limit"].value)) == 0.1
