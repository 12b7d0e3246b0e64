"""What Dagster loads: keys, jobs, schedules, sensors, groups, owners, kinds, checks, versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.building import build_definitions
from assets.specs import key_of
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.home import Home
from resources.run_contexts import RunContexts

PROJECT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ("quickstart", "quickstart_merge", "quickstart_without_replay")


def definitions_of(root):
    return build_definitions(build_project(root), RunContexts.of(Home(root / ".fomo")), COMMANDS)


@pytest.fixture(scope="module")
def shipped():
    return definitions_of(PROJECT)


def names(kind, numbers):
    return {f"{kind}_{number:03d}" for number in numbers}


def test_the_shipped_experiments_have_these_assets(shipped):
    datasets = {
        "quickstart_pretraining", "digits", "photographs", "greek", "pictograms", "clocks", "flags",
        "aerial", "rooms", "shapes", "textures", "letters", "relations",
    }  # fmt: skip
    expected = {"leaderboard", "backbones/quickstart", "pools/quickstart", "comparisons/replay"}
    expected |= {f"{folder}/{name}" for folder in ("sources", "shards") for name in datasets}
    expected |= {"streams/quickstart/order"}
    expected |= {f"streams/quickstart/{name}" for name in names("chunk", range(1, 6))}
    for experiment in EXPERIMENTS:
        assets = {"scores", "scores_over_stages"}
        assets |= names("trained", range(1, 6)) | names("evaluation", range(6))
        if experiment == "quickstart_merge":
            assets |= names("deployed", range(1, 6))
        expected |= {f"{experiment}/{name}" for name in assets}
    graph = shipped.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == expected


def test_the_shipped_experiments_have_these_jobs_schedules_and_sensors(shipped):
    repository = shipped.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {*EXPERIMENTS, "comparisons_replay", "observe_sources", "run_experiment"}
    assert {s.name for s in repository.schedule_defs} == {"observe_sources_schedule"}
    assert {s.name for s in repository.sensor_defs} == {"update_what_changed"}


def test_an_experiment_with_a_cron_schedule_gets_a_schedule_of_its_job(project):
    project.write("toy", cron_schedule="0 3 * * *")
    schedule = definitions_of(project.root).get_repository_def().get_schedule_def("toy_schedule")
    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.job_name == "toy"


def test_groups_are_the_experiment_s_or_the_shared_kind_s(project):
    project.write("other")
    groups: dict[str, set[str]] = {}
    for spec in definitions_of(project.root).resolve_all_asset_specs():
        groups.setdefault(spec.group_name, set()).add(spec.key.path[0])
    assert groups == {
        "toy": {"toy"}, "other": {"other"}, "datasets": {"sources", "shards"},
        "manifests": {"streams", "pools"}, "backbones": {"backbones"},
        "leaderboard": {"leaderboard"},
    }  # fmt: skip


def test_owners_are_those_of_every_experiment_that_needs_an_asset(project):
    project.write("toy", owners=["team:models"])
    project.write("other", owners=["ann@example.org"])
    specs = {
        s.key.to_user_string(): s for s in definitions_of(project.root).resolve_all_asset_specs()
    }
    assert list(specs["toy/trained_001"].owners) == ["team:models"]
    assert list(specs["other/scores"].owners) == ["ann@example.org"]
    assert list(specs["backbones/toy"].owners) == ["ann@example.org", "team:models"]


def test_assets_have_descriptions_and_made_ones_kinds_and_a_code_version(shipped):
    for spec in shipped.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert "{" not in spec.description
        if spec.key.path[0] != "sources" and spec.key.path[-1] != "scores_over_stages":
            assert spec.kinds
            assert spec.code_version
            assert spec.automation_condition is not None


def test_checks_that_protect_a_training_block(project):
    graph = definitions_of(project.root).resolve_asset_graph()
    checks = {
        (key.asset_key.to_user_string(), key.name): graph.get_check_spec(key).blocking
        for key in graph.asset_check_keys
    }
    weights = ["backbones/toy", *(f"toy/trained_{stage:03d}" for stage in (1, 2, 3))]
    shards = ["shards/birds", "shards/cats", "shards/old"]
    assert checks == {
        **{(key, "finite_weights"): True for key in weights},
        **{(key, "readable_images"): True for key in shards},
        **{(key, "no_empty_concepts"): False for key in shards},
        **{
            (f"toy/evaluation_{stage:03d}", check): False
            for stage in range(4)
            for check in ("classes_told_apart", "scores_tell_models_apart")
        },
        ("toy/scores", "zero_shot_retention_holds"): False,
    }


def code_versions(root):
    specs = definitions_of(root).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec.code_version for spec in specs}


def test_code_versions_change_for_what_a_declaration_touches_and_no_more(project):
    before = code_versions(project.root)
    assert code_versions(project.root) == before
    project.write("toy", optimiser={"learning_rate": 5e-4})
    after = code_versions(project.root)
    changed = {key for key in before if before[key] != after[key]}
    stages = {f"toy/{kind}_{t:03d}" for kind in ("trained", "evaluation") for t in (1, 2, 3)}
    assert changed == stages | {"toy/scores", "leaderboard"}


def test_an_asset_depends_on_what_its_node_needs(project):
    graph = project.graph()
    resolved = definitions_of(project.root).resolve_asset_graph()
    for node in graph.nodes.values():
        parents = {key.to_user_string() for key in resolved.get(key_of(node.key)).parent_keys}
        assert parents == set(node.inputs), node.key


@pytest.mark.slow
def test_loading_definitions_imports_neither_torch_nor_open_clip(project):
    script = (
        "import sys, fomo_dagster.definitions;"
        "print(sorted({'torch', 'torchvision', 'open_clip', 'matplotlib'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "FOMO_PROJECT": str(project.root)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=PROJECT, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert not project.home.root.exists()  # and loading writes nothing
