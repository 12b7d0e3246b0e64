"""Running and planning an experiment with other values than its file's, from the launchpad."""

import dagster as dg
import pytest

from assets.building import build_definitions
from assets.commands import Commands
from assets.launchpad import OP, Launch, launch_job
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.graph.build.builder import build_project
from resources.run_contexts import RunContexts


def launched(project, instance, **config):
    """The result of a launch; a failure is raised."""
    definitions = build_definitions(
        build_project(project.root), RunContexts.of(project.home), COMMANDS
    )
    return definitions.resolve_job_def("run_experiment").execute_in_process(
        {"ops": {OP: {"config": config}}}, instance
    )


def heads(project):
    return {path: path.read_bytes() for path in project.home.root.glob("heads/**/*.json")}


def test_a_plan_shows_what_other_values_would_compute_and_computes_nothing(finished_project):
    before = heads(finished_project), finished_project.artifacts()
    values = ["optimiser.learning_rate=5e-4"]
    with prepare(finished_project.home) as instance:
        done = launched(finished_project, instance, experiment="toy", set=values, plan_only=True)
    [output] = [event for event in done.all_events if event.is_successful_output]
    shown = output.step_output_data.metadata
    assert (shown["to_compute"].value, shown["hits"].value) == (8, 10)
    rows = {row.data["asset"]: row.data["why"] for row in shown["computed_assets"].records}
    assert rows["toy/trained_001"] == "optimiser.learning_rate 0.001 → 0.0005"
    assert rows["leaderboard"] == "scores changed"
    assert (heads(finished_project), finished_project.artifacts()) == before


def test_a_launch_hands_its_values_to_the_command():
    asked = []
    job = launch_job(Commands(run=lambda *given: asked.append(given), plan=lambda *_: []), "toy")
    config = {"experiment": "lr/low", "set": ["name=other", "stream.stages=3"]}
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process({"ops": {OP: {"config": config}}}, instance)
        assert asked == [("lr/low", ["name=other", "stream.stages=3"], instance)]


@pytest.mark.parametrize(
    ("config", "said"),
    [({"experiment": "toy", "set": ["optimiser.learning_rat=1"]}, "did you mean 'learning_rate'"),
     ({"experiment": "toy", "set": ["batch_size"], "plan_only": True}, "batch_size"),
     ({"experiment": "tyo"}, "did you mean 'toy'")],
)  # fmt: skip
def test_a_wrong_value_is_said_before_anything_is_computed(project, config, said):
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match=said):
        launched(project, instance, **config)
    assert not project.artifacts()


def test_the_launchpad_describes_every_key_and_first_plans(project):
    assert all(field.description for field in Launch.model_fields.values())
    definitions = build_definitions(
        build_project(project.root), RunContexts.of(project.home), COMMANDS
    )
    job = definitions.get_repository_def().get_job("run_experiment")
    first = {"experiment": "toy", "set": [], "plan_only": True}
    assert job.run_config == {"ops": {OP: {"config": first}}}
