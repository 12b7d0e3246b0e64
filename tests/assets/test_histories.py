"""Scores over stages as one history in Dagster, and pictures named by what they show."""

import dagster as dg
import polars as pl
import pytest

from assets.building import build_assets, build_definitions
from assets.histories import history_key, report_history
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.tables.results import results
from resources.run_contexts import RunContexts

SCORES = dg.AssetKey(["toy", "scores"])
HISTORY = dg.AssetKey(["toy", "scores_over_stages"])


def told(instance, key=HISTORY):
    """(stage, its numbers) of a history, in the order of reporting."""
    records = instance.fetch_materializations(key, limit=100).records
    found = [record.asset_materialization for record in reversed(records)]
    return [
        (one.partition, {name: value.value for name, value in one.metadata.items()})
        for one in found
    ]  # fmt: skip


def test_a_run_reports_the_scores_of_every_stage_once(finished_project):
    stages = results(finished_project.home.root, ["toy"]).stages.sort("stage")
    names = [metric.name for metric in STAGE_METRICS]
    expected = [
        (f"stage_{row['stage']:03d}", {n: row[n] for n in names if row[n] is not None})
        for row in stages.with_columns(pl.col(names).round(2)).to_dicts()
    ]
    assert len(expected) == 4
    with prepare(finished_project.home) as instance:
        assert told(instance) == expected
        done = dg.materialize(
            build_assets(resolve_request("toy", []).graph),
            selection=dg.AssetSelection.assets(SCORES),
            resources={"run_contexts": RunContexts.of(finished_project.home)},
            instance=instance,
        )
        assert done.success
        assert told(instance) == expected


def test_pictures_are_named_by_what_they_show(finished_project):
    with prepare(finished_project.home) as instance:

        def pictures(key):
            event = instance.get_latest_materialization_event(dg.AssetKey(key.split("/")))
            metadata = event.asset_materialization.metadata
            return [title for title, one in metadata.items() if str(one.value).startswith("![")]

        assert pictures("toy/trained_001") == pictures("backbones/toy") == ["loss_over_steps"]
        assert pictures("shards/birds") == ["images_of_concepts"]
        assert pictures("streams/toy/order") == ["datasets_by_position_in_the_stream"]
        paths = "knowledge_accumulation_against_zero_shot_retention"
        assert pictures("toy/scores") == [paths, "scores_by_dataset_and_stage"]
        assert pictures("leaderboard") == [paths]


class Numbers:
    """A node that tells numbers over stages."""

    key = "an/asset"

    def __init__(self, *values):
        self.values = values

    def over_stages(self, outcome, context):
        return {stage: {"score": value} for stage, value in enumerate(self.values)}


@pytest.mark.parametrize(
    ("then", "added"),
    [((1.0, 2.0), []), ((1.0, 2.0, 2.0), [2]), ((1.0, 3.0, 2.0), [1, 2]), ((1.0,), [])],
)
def test_only_stages_with_other_numbers_than_before_are_reported_again(then, added):
    with dg.DagsterInstance.ephemeral() as instance:

        def report(*values):
            @dg.op
            def step(context: dg.OpExecutionContext) -> None:
                report_history(Numbers(*values), None, None, context)

            @dg.job
            def job():
                step()

            job.execute_in_process(instance=instance)
            return told(instance, history_key(Numbers()))

        before = report(1.0, 2.0)
        assert before == [("stage_000", {"score": 1.0}), ("stage_001", {"score": 2.0})]
        more = [(f"stage_{stage:03d}", {"score": then[stage]}) for stage in added]
        assert report(*then) == before + more


def test_the_history_has_a_partition_a_stage_and_is_no_part_of_a_job(project):
    graph = build_project(project.root)
    definitions = build_definitions(graph, RunContexts.of(project.home), COMMANDS)
    node = definitions.resolve_asset_graph().get(HISTORY)
    assert node.partitions_def.get_partition_keys() == [f"stage_{t:03d}" for t in range(4)]
    assert node.parent_keys == {SCORES}
    assert not node.is_executable
    assert HISTORY not in definitions.resolve_job_def("toy").asset_layer.selected_asset_keys
