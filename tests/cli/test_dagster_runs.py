"""What `fomo run` and arrivals compute is a run of the named job, in its history in the UI."""

import shutil

import dagster as dg
import pytest
import yaml

from fomo_dagster.cli.dagster_home import end_dead_runs, prepare
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import DataError

pytestmark = pytest.mark.slow

# What the page of a job in the UI asks for.
MODULE = "fomo_dagster.definitions"
OF_THE_PROJECT = {".dagster/repository": f"__repository__@{MODULE}"}


def history(project, job):
    """The runs that the UI shows of a job, the last one first."""
    return prepare(project.home).get_runs(dg.RunsFilter(job_name=job, tags=OF_THE_PROJECT))


def test_a_run_is_one_of_the_experiments_job_and_says_its_command(finished_project):
    (first,) = history(finished_project, "toy")
    assert first.tags["fomo/experiment"] == "toy"
    assert first.tags["fomo/command"] == "fomo run toy"
    assert len(first.asset_selection) == 18
    run_experiment("toy", ["optimiser.learning_rate=5e-4", "description=a b"])
    second, _ = history(finished_project, "toy")
    command = "fomo run toy --set optimiser.learning_rate=5e-4 --set 'description=a b'"
    assert second.tags["fomo/command"] == command
    stages = {f"toy/{kind}_{t:03d}" for kind in ("trained", "evaluation") for t in (1, 2, 3)}
    selected = {key.to_user_string() for key in second.asset_selection}
    assert selected == stages | {"toy/scores", "leaderboard"}
    for run in (first, second):
        location = run.remote_job_origin.repository_origin.code_location_origin
        assert (run.remote_job_origin.job_name, location.location_name) == ("toy", MODULE)
    assert location.loadable_target_origin.working_directory == str(finished_project.root)


def test_a_run_that_fails_is_in_the_history_too(finished_project):
    path = finished_project.root / "images/birds/train/crow/0.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError):
        run_experiment("toy", [])
    assert history(finished_project, "toy")[0].status == dg.DagsterRunStatus.FAILURE


def test_the_experiments_of_a_sweep_are_one_run_of_its_job(finished_project):
    sweep = {"extends": "toy", "sweep": {"evaluation.retention_warning": [0.1, 0.2]}}
    path = finished_project.root / "experiments/lots.yaml"
    path.write_text(yaml.safe_dump(sweep))
    run_experiment("lots", [])
    (run,) = history(finished_project, "lots")
    assert run.tags["fomo/command"] == "fomo run lots"
    selected = {key.to_user_string() for key in run.asset_selection}
    assert {f"lots_retention_warning_0_{n}/scores" for n in (1, 2)} <= selected


def test_a_file_that_dagster_does_not_load_has_runs_but_no_place_in_its_ui(finished_project):
    folder = finished_project.root / "experiments"
    (folder / "below").mkdir()
    shutil.copy(folder / "toy.yaml", folder / "below/other.yaml")
    run_experiment("below/other", [])
    assert history(finished_project, "below_other") == []
    (run,) = prepare(finished_project.home).get_runs(dg.RunsFilter(job_name="below_other"))
    assert run.tags["fomo/command"] == "fomo run below/other"


def test_a_run_that_is_executed_again_is_not_taken_for_the_dead_one_it_repeats(finished_project):
    """It inherits the tags, and with them the process that ended long ago."""
    instance = prepare(finished_project.home)
    (first,) = history(finished_project, "toy")
    tags = {**first.tags, "fomo/process": "1-0", "dagster/parent_run_id": first.run_id}
    again = first._replace(
        run_id="again", tags=tags, parent_run_id=first.run_id, root_run_id=first.run_id,
        status=dg.DagsterRunStatus.STARTED,
    )  # fmt: skip
    instance.add_run(again)
    end_dead_runs(instance)
    assert instance.get_run_by_id("again").status == dg.DagsterRunStatus.STARTED
