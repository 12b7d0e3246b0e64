"""What was once spent stays: a hit moves neither what an artifact cost nor when it was made."""

import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.tables.views import query

SPENT = "SELECT asset, recorded_at, seconds, cost FROM artifacts ORDER BY asset"


def materialise_all(project, name):
    """Every asset of an experiment, as a job in Dagster does; what each took this time."""
    request = resolve_request(name, [])
    context = RunContext(request.graph, project.home)
    return [materialise(node.key, context) for node in request.nodes]


def test_a_rerun_of_hits_leaves_what_was_spent_and_says_when_it_looked(finished_project):
    home = finished_project.home
    before = query(home.root, SPENT)
    looked = dict(query(home.root, "SELECT asset, checked_at FROM artifacts").iter_rows())
    outcomes = materialise_all(finished_project, "toy")
    assert {outcome.head.status for outcome in outcomes} == {"hit"}
    assert query(home.root, SPENT).equals(before)
    again = query(home.root, "SELECT asset, checked_at, recorded_at, status FROM artifacts")
    assert all(checked > looked[asset] for asset, checked, _, _ in again.iter_rows())
    assert all(checked > recorded for _, checked, recorded, _ in again.iter_rows())
    # what making took is the artifacts' own account of it, not how long this look was
    for outcome in outcomes:
        made = [artifact.cost["seconds"] for artifact in outcome.artifacts.values()]
        assert outcome.head.seconds == pytest.approx(sum(made), rel=1e-12)
        assert outcome.seconds < 60


def test_experiments_that_share_their_artifacts_each_show_what_these_cost(finished_project):
    home = finished_project.home
    alone = query(home.root, "SELECT samples, seconds FROM leaderboard").row(0)
    stages = "SELECT stage, samples, seconds FROM costs WHERE experiment = '{}' ORDER BY stage"
    by_stage = query(home.root, stages.format("toy")).rows()
    request = resolve_request("toy", ["optimiser.learning_rate=5e-4"])
    estimate = plan(request.nodes, RunContext(request.graph, home))
    finished_project.write("twin")
    assert {outcome.head.status for outcome in materialise_all(finished_project, "twin")} <= {
        "hit", "computed",
    }  # fmt: skip
    board = query(home.root, "SELECT experiment, samples, seconds FROM leaderboard ORDER BY 1")
    assert board.rows() == [("toy", *alone), ("twin", *alone)]
    assert query(home.root, stages.format("twin")).rows() == by_stage
    spent = "SELECT sum(seconds) FROM artifacts WHERE experiment = '{}' AND kind = 'trained'"
    assert query(home.root, spent.format("twin")).equals(query(home.root, spent.format("toy")))
    after = plan(request.nodes, RunContext(request.graph, home))
    trained = [e.estimated_seconds for e in after if e.kind == "trained"]
    assert trained == [e.estimated_seconds for e in estimate if e.kind == "trained"]
