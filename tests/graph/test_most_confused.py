"""What Dagster shows of an evaluation: the classes that are most often taken for others."""

from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.tables.views import query

CONFUSED = """
SELECT sum(samples)::BIGINT FROM confusions WHERE stage = 3 AND concept <> predicted
"""


def test_an_evaluation_shows_the_classes_that_it_confuses(finished_project):
    graph = build_graph([finished_project.load()])
    context = RunContext(graph, finished_project.home)
    key = "toy/evaluation_003"
    shown = graph.nodes[key].shown(materialise(key, context), context)["most_confused"]
    assert shown.columns == ["dataset", "concept", "predicted", "images"]
    assert shown["images"].sum() == query(finished_project.home.root, CONFUSED).item()
    assert not (shown["concept"] == shown["predicted"]).any()
