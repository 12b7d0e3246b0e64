"""Runs at the same time: each thing is made once, and nobody fails for the company."""

from assets.building import build_definitions
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from resources.run_contexts import RunContexts


def status_of_runs(project):
    return [run.status.value for run in prepare(project.home).get_runs()]


def test_the_second_run_of_an_experiment_waits_and_finds_everything_made(project, nursery):
    first = nursery.start(project, "run", "toy", watch=("store/.staging/shards-", 2, 1.0))
    assert first.sign()
    second = nursery.start(project, "run", "toy")
    assert first.wait() == 0, first.output
    assert second.wait() == 0, second.output
    assert f"waiting for process {first.process}, which is running toy" in second.output
    assert "waited" in second.output
    assert "to compute" not in second.output
    assert len(status_of_runs(project)) == 1


def test_two_experiments_at_once_make_what_they_share_once(project, nursery):
    project.write("rate", optimiser={"learning_rate": 5e-4})
    first = nursery.start(project, "run", "toy", watch=("store/.staging/backbone-", 1, 2.0))
    second = nursery.start(project, "run", "rate")
    first.sign()  # while it pauses in the midst of θ₀, the other gets there, or the other way round
    assert first.wait() == 0, first.output
    assert second.wait() == 0, second.output
    made = [a.partition("/")[0] for a in project.artifacts()]
    assert {kind: made.count(kind) for kind in ("shards", "chunk", "backbone", "trained")} == {
        "shards": 3, "chunk": 3, "backbone": 1, "trained": 6,
    }  # fmt: skip
    computed = [line.split()[1] for fomo in (first, second) for line in lines_of(fomo, "computed")]
    assert len(computed) - len(set(computed)) <= 1  # the leaderboard, which each brings up to date


def test_a_run_beside_a_materialisation_of_dagster_makes_nothing_twice(project, nursery):
    instance = prepare(project.home)
    fomo = nursery.start(project, "run", "toy", watch=("store/.staging/shards-", 2, 1.0))
    assert fomo.sign()
    request = resolve_request("toy", [])
    definitions = build_definitions(request.graph, RunContexts.of(project.home), COMMANDS)
    assert definitions.resolve_job_def("toy").execute_in_process(instance=instance).success
    assert fomo.wait() == 0, fomo.output
    made = [a.partition("/")[0] for a in project.artifacts()]
    assert {kind: made.count(kind) for kind in ("shards", "backbone", "trained", "scores")} == {
        "shards": 3, "backbone": 1, "trained": 3, "scores": 1,
    }  # fmt: skip
    assert status_of_runs(project) == ["SUCCESS", "SUCCESS"]
    assert nursery.run(project, "run", "toy")[1].startswith("toy is up to date")


def lines_of(fomo, word):
    return [line for line in fomo.output.splitlines() if line.split()[:1] == [word]]
