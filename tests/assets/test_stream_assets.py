"""What a person sees of a stream in Dagster: its order as a table and a picture, and the probe."""

import dagster as dg

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli.planning import resolve_request
from resources.run_contexts import RunContexts


def test_an_order_shows_its_table_and_its_picture(finished_project):
    stream = {"name": "toy", "datasets": ["birds", "cats"], "stages": 3, "order": "performance"}
    finished_project.write("toy", stream=stream)
    keys = ("streams/toy/probe", "streams/toy/order", "streams/toy/chunk_001")
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            build_assets(resolve_request("toy", []).graph),
            selection=dg.AssetSelection.assets(*map(key_of, keys)),
            resources={"run_contexts": RunContexts.of(finished_project.home)},
            instance=instance,
        )
    shown = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in done.get_asset_materialization_events()
    }
    probe, order, _ = (shown[key] for key in keys)
    assert {"score_birds", "score_cats", "metrics"} <= probe.keys()
    assert probe["status"].value == "hit"
    records = [record.data for record in order["order"].records]
    assert [record["position"] for record in records] == [1, 2, 3, 4, 5, 6]
    figures = [record["figure"] for record in records]
    assert figures == sorted(figures, reverse=True)
    assert order["figure"].value == "zero-shot score of θ₀ (%)"
    assert order["datasets_by_position_in_the_stream"].value.startswith(
        "![datasets by position in the stream](data:image/png;base64,"
    )
    assert (order["concepts"].value, order["datasets"].value) == (6, 2)
