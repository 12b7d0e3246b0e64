"""What stages start from and deploy: what depends on what, the numbers, changes, and kills."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from assets.descriptions import metadata_of
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.graph.nodes.weights import FINITE_WEIGHTS, WEIGHTS
from fomo_dagster.graph.run.materialise import materialise, remove_stale_heads
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.merging.checkpoints import Checkpoints
from fomo_dagster.merging.opcm import Opcm
from fomo_dagster.merging.over_time import COMBINATIONS
from fomo_dagster.merging.techniques import merge as merge_files
from fomo_dagster.progress import Callbacks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uncounted")]

SOME = "visual.conv1.weight"
THETA = "backbones/toy"
SEED = "seed=1"  # nothing of which was trained yet


def keys(kind, *stages):
    return tuple(f"toy/{kind}_{stage:03d}" for stage in stages)


# Combination → what stages 1, 2, 3 start from, what they deploy, and what the merges are made of.
ENDLESS = ((THETA, "trained 1", "trained 2"),)
T1, T2, T3 = keys("trained", 1, 2, 3)
D1, D2, D3 = keys("deployed", 1, 2, 3)
S2, S3 = keys("start", 2, 3)
FOLD = {D2: (T1, T2), D3: (D2, T3)}
JOINT = {D2: (T1, T2), D3: (T1, T2, T3)}
RUNNING = {D1: (THETA, T1), D2: (D1, T2), D3: (D2, T3)}
TO_THETA = {D1: (THETA, T1), D2: (THETA, T2), D3: (THETA, T3)}
STARTS = {S3: (T1, T2)}
EXPECTED = {
    "ema_merge": ((THETA, D1, D2), RUNNING),
    "zs_merge": ((THETA, THETA, THETA), RUNNING),
    "ft_merge": ((THETA, T1, T2), RUNNING),
    "ft_merge_released": ((THETA, D1, D2), TO_THETA),
    "offline_merge": ((THETA, THETA, THETA), JOINT),
    "double_merge_all_all": ((THETA, T1, D2), JOINT),
    "double_merge_all_ft": ((THETA, T1, S3), STARTS),
    "double_merge_all_unrolled": ((THETA, T1, S3), FOLD | STARTS),
    "double_merge_ft_all": ((THETA, T1, T2), JOINT),
    "double_merge_ft_unrolled": ((THETA, T1, T2), FOLD),
    "double_merge_unrolled_all": ((THETA, T1, S3), JOINT | STARTS),
    "double_merge_unrolled_ft": ((THETA, T1, S3), STARTS),
    "double_merge_zs_unrolled": ((THETA, THETA, THETA), FOLD),
}


def weights_of(graph):
    """The nodes of all weights after θ₀'s, which need no evaluation."""
    return [n for n in graph.nodes.values() if n.kind in ("trained", "deployed", "start")]


def make(graph, home, callbacks=None):
    """Materialise all weights in this process; what was computed, by asset."""
    run_context = RunContext(graph, home, callbacks=callbacks)
    return {node.key for node in weights_of(graph) if materialise(node.key, run_context).computed}


def planned(graph, home):
    """The weights that a plan says are computed."""
    entries = plan(graph.nodes.values(), RunContext(graph, home))
    made = {node.key for node in weights_of(graph)}
    return {entry.asset: entry for entry in entries if entry.compute and entry.asset in made}


class Killed(BaseException):
    """What nothing expects."""


def in_double_precision(path):
    return {name: values.astype(np.float64) for name, values in load_file(path).items()}


def assert_close(found, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def chained(graph):
    """Whether a training needs another one, directly or through merges."""
    needed = {}
    for node in weights_of(graph):
        needed[node.key] = set(node.inputs).union(*(needed.get(k, ()) for k in node.inputs))
    return any(set(keys("trained", 1, 2, 3)) & needed[key] for key in keys("trained", 1, 2, 3))


def test_every_combination_is_tested_here():
    assert EXPECTED.keys() == COMBINATIONS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_stage_depends_on_what_the_combination_says(project, name):
    starts, merges = EXPECTED[name]
    graph = project.graph("toy", f"method.combination={name}")
    nodes = graph.nodes
    found = {k: n.model_keys for k, n in nodes.items() if n.kind in ("deployed", "start")}
    assert found == merges
    assert all(nodes[key].inputs == models for key, models in merges.items())
    assert tuple(nodes[key].start_key for key in (T1, T2, T3)) == starts
    assert tuple(nodes[key].inputs[0] for key in (T1, T2, T3)) == starts
    for stage, trained in enumerate((T1, T2, T3), start=1):
        deployed = f"toy/deployed_{stage:03d}"
        served = deployed if deployed in merges else trained
        assert nodes[f"toy/evaluation_{stage:03d}"].checkpoint_key == served
    assert chained(graph) is (COMBINATIONS[name].start_from != "initial")


def test_techniques_over_task_vectors_need_theta_0_beside_the_models(project):
    merge = "technique: magmax"
    nodes = project.graph("toy", f"method={{combination: offline_merge, merge: {{{merge}}}}}").nodes
    assert nodes[D3].inputs == (THETA, T1, T2, T3)
    nodes = project.graph("toy", f"method={{deploy: with_initial, merge: {{{merge}}}}}").nodes
    assert nodes[D3].inputs == (THETA, T3)
    assert nodes[D3].model_keys == (T3,)


def test_theta_0_can_be_one_of_the_models_of_a_joint_merge_from_the_first_on(project):
    method = "{combination: double_merge_all_ft, joint: {include_initial: true}}"
    nodes = project.graph("toy", f"method={method}").nodes
    assert {k: n.inputs for k, n in nodes.items() if n.kind == "start"} == {
        S2: (THETA, T1), S3: (THETA, T1, T2),
    }  # fmt: skip
    assert [nodes[key].start_key for key in (T1, T2, T3)] == [THETA, S2, S3]


def test_lots_are_drawn_anew_for_each_merge_that_a_later_one_goes_on_from(project):
    dare = "merge: {technique: dare, seed: 3}"

    def seeds(method):
        nodes = project.graph("toy", f"method={{{method}, {dare}}}").nodes
        return [n.technique.seed for n in nodes.values() if n.kind in ("deployed", "start")]

    assert len(set(seeds("deploy: with_previous"))) == 3
    assert seeds("deploy: joint") == [3, 3]  # a model's lots are its own, however many there are
    fold, start = seeds("deploy: fold"), seeds("start_from: fold, deploy: trained")
    assert start == fold[:1]  # so that what one experiment starts from another may deploy


@pytest.fixture(autouse=True, scope="module")
def without_curves():
    """A picture takes longer than a training here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("fomo_dagster.graph.work.stage.training_plot", lambda table: b"")
        yield


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """Every combination as it is where nothing disturbs it: name → asset → its file of weights."""
    root = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(finished.home.root, root, dirs_exist_ok=True)
    home, files = Home(root), {}
    for name in COMBINATIONS:
        graph = finished.graph("toy", f"method.combination={name}", SEED)
        make(graph, home)
        made = [THETA, *(node.key for node in weights_of(graph))]
        files[name] = {key: RunContext(graph, home).artifact(key).path(WEIGHTS) for key in made}
    return files


@pytest.mark.parametrize("name", EXPECTED)
def test_the_weights_of_each_combination_are_the_means_that_it_says(undisturbed, name):
    made = {key: in_double_precision(path) for key, path in undisturbed[name].items()}
    for key, models in EXPECTED[name][1].items():
        merged = [made[model] for model in models]
        expected = {n: sum(model[n] for model in merged) / len(merged) for n in merged[0]}
        assert_close(made[key], expected)
        assert not np.array_equal(made[key][SOME], made[models[-1]][SOME])


@pytest.mark.parametrize("name", EXPECTED)
def test_each_combination_killed_in_training_and_merging_ends_with_equal_weights(
    finished_project, undisturbed, monkeypatch, name
):
    overrides = (f"method.combination={name}", SEED, "execution.resume_seconds=1e-9")
    graph, home = finished_project.graph("toy", *overrides), finished_project.home
    ended, tensors = [], []

    def die_in_the_last_step_of_stage_2(what, done, total, *_):
        ended.extend([what] if done == total else [])
        if len(ended) == 2:
            raise Killed

    with pytest.raises(Killed):
        make(graph, home, Callbacks(progress=die_in_the_last_step_of_stage_2))
    assert home.heads.read(T1).status == "computed"
    assert len(list(home.resume_points.glob("*/resume.pt"))) == 1

    tasks = Checkpoints.tasks

    def die_after_some_tensors(checkpoints, name, *rest, **options):
        tensors.append(name)
        if len(tensors) == 9:
            raise Killed
        return tasks(checkpoints, name, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "tasks", die_after_some_tensors)
        with pytest.raises(Killed):
            make(graph, home)
    make(graph, home)
    run_context = RunContext(graph, home)
    for key, path in undisturbed[name].items():
        assert run_context.artifact(key).path(WEIGHTS).read_bytes() == path.read_bytes(), key


def method(rules, **merge):
    """The override of a method; rules: as in YAML, without braces."""
    declared = ", ".join(f"{name}: {value}" for name, value in merge.items())
    return f"method={{{rules}, merge: {{{declared}}}}}"


def test_weights_of_a_joint_merge_are_mean_shares_and_task_vector_multiples(
    finished_project,
):
    rules = "deploy: joint, joint: {weighting: quadratic, reversed: true, include_initial: true}"
    home = finished_project.home
    graph = finished_project.graph("toy", method(rules, technique="interpolation"))
    assert make(graph, home) == {D1, D2, D3}  # of what was trained before
    paths = {
        key: RunContext(graph, home).artifact(key).path(WEIGHTS) for key in (THETA, T1, T2, T3)
    }
    theta, *models = (in_double_precision(path) for path in paths.values())
    found = in_double_precision(RunContext(graph, home).artifact(D3).path(WEIGHTS))
    squares = [16 / 30, 9 / 30, 4 / 30, 1 / 30]  # the oldest, θ₀, counts the most
    for name, values in found.items():
        shares = zip(squares, [theta, *models], strict=True)
        expected = sum(share * model[name] for share, model in shares)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)

    rules = "deploy: joint, joint: {weighting: linear}"
    graph = finished_project.graph("toy", method(rules, technique="task_arithmetic", scale=0.5))
    assert make(graph, home) == {D2, D3}
    found = in_double_precision(RunContext(graph, home).artifact(D3).path(WEIGHTS))
    for name, values in found.items():
        vectors = [model[name] - theta[name] for model in models]
        summed = sum(c * vector for c, vector in zip((0.5, 1.0, 1.5), vectors, strict=True))
        np.testing.assert_allclose(values, theta[name] + 0.5 * summed, rtol=1e-5, atol=1e-7)


def test_opcm_over_stages_needs_the_last_merge_alone_and_is_that_of_all_at_once(
    finished_project, tmp_path
):
    home = finished_project.home
    graph = finished_project.graph("toy", method("start_from: initial", technique="opcm"))
    make(graph, home)
    assert graph.nodes[D3].inputs == (THETA, D2, T3)
    paths = {
        key: RunContext(graph, home).artifact(key).path(WEIGHTS) for key in (THETA, T1, T2, T3)
    }
    theta, *models = paths.values()
    merge_files(Opcm(), models, tmp_path / "all", theta)
    deployed = RunContext(graph, home).artifact(D3).path(WEIGHTS)
    assert_close(in_double_precision(deployed), in_double_precision(tmp_path / "all"))
    deployed = RunContext(graph, home).artifact(D1).path(WEIGHTS)
    assert_close(in_double_precision(deployed), in_double_precision(paths[T1]))


def test_another_technique_or_weighting_of_an_offline_merge_trains_nothing(finished_project):
    home = finished_project.home
    offline = "combination: offline_merge"
    make(finished_project.graph("toy", f"method={{{offline}}}"), home)
    for rules, merge, reason in (
        (offline, {"technique": "magmax"}, "technique weighted_mean → magmax"),
        (f"{offline}, joint: {{weighting: cubic}}", {"technique": "magmax"}, "weighting (none) →"),
    ):
        graph = finished_project.graph("toy", method(rules, **merge))
        foreseen = planned(graph, home)
        assert foreseen.keys() == {D2, D3}
        assert any(text.startswith(reason) for text in foreseen[D3].reasons)
        assert make(graph, home) == {D2, D3}
        assert not planned(graph, home)


def test_another_technique_of_a_joint_start_trains_again_from_where_it_counts(finished_project):
    home = finished_project.home
    make(finished_project.graph("toy", "method.combination=double_merge_all_unrolled"), home)
    graph = finished_project.graph(
        "toy", method("combination: double_merge_all_unrolled", technique="karcher")
    )
    foreseen = planned(graph, home)
    # stages 1 and 2 started from single models; of two models the joint merge is the fold, D2
    assert foreseen.keys() == {D2, T3, D3}
    assert foreseen[T3].reasons == ("it starts from other weights",)
    assert {
        "the weights that the trained ones are merged with are others",
        "the trained weights are others",
    } <= set(foreseen[D3].reasons)
    assert make(graph, home) == foreseen.keys()


def test_what_one_experiment_starts_from_and_another_deploys_is_made_once(finished_project):
    home = finished_project.home
    make(finished_project.graph("toy", "method.combination=double_merge_unrolled_ft"), home)
    graph = finished_project.graph("toy", "method={deploy: fold, start_from: fold, merge: {}}")
    assert planned(graph, home).keys() == {D3}
    assert make(graph, home) == {D3}
    joint = "start_from: fold, deploy: joint"
    for rules, computed in (("start_from: fold, deploy: fold", {D2, T3, D3}), (joint, {D3})):
        graph = finished_project.graph("toy", method(rules, technique="ties"))
        assert make(graph, home) == computed  # of two models both are the same


def test_dagster_makes_starts_and_folds_and_leaves_nothing_out_of_date(
    finished_project,
):
    finished_project.write("toy", method={"combination": "double_merge_all_unrolled"})
    run_experiment("toy", [])
    graph, home = finished_project.graph(), finished_project.home
    assert all(entry.current for entry in plan(graph.nodes.values(), RunContext(graph, home)))
    of_kind = {key: home.heads.read(key).kind for key in (D2, D3, S3, T3)}
    assert of_kind == {D2: "deployed", D3: "deployed", S3: "start", T3: "trained"}
    evaluated = home.heads.read("toy/evaluation_003").recipes["birds"]["inputs"]["checkpoint"]
    assert evaluated == home.heads.read(D3).data_version
    finished_project.write("toy", method={"merge": {}})
    assert S3 in remove_stale_heads("toy", RunContext(finished_project.graph(), home))


def test_a_person_sees_what_is_merged_of_what_and_how_much_each_counts(finished_project):
    rules = "start_from: fold, deploy: joint, joint: {weighting: linear}"
    graph = finished_project.graph("toy", method(rules, technique="task_arithmetic"))
    run_context = RunContext(graph, finished_project.home)
    nodes, outcomes = graph.nodes, {}
    for node in weights_of(graph):
        outcomes[node.key] = materialise(node.key, run_context)
    assert nodes[S3].description == (
        f"The weights that stage 3 starts from: task_arithmetic of {T1} and {T2}."
    )
    assert nodes[D3].description == (
        f"The weights that stage 3 serves: task_arithmetic of {T1} to {T3}."
    )
    assert all(FINITE_WEIGHTS in node.checks for node in weights_of(graph))
    seen = metadata_of(nodes[D3], outcomes[D3], run_context)
    assert (seen["technique"], seen["weighting"], seen["base"]) == (
        "task_arithmetic", "linear", THETA,
    )  # fmt: skip
    assert [record.data for record in seen["merges"].records] == [
        {"model": T1, "coefficient": "0.5"},
        {"model": T2, "coefficient": "1"},
        {"model": T3, "coefficient": "1.5"},
    ]
    started = metadata_of(nodes[S3], outcomes[S3], run_context)
    assert [record.data for record in started["merges"].records] == [{"model": T1}, {"model": T2}]
