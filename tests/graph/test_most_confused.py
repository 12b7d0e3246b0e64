"""What Dagster shows of an evaluation: the classes that are most often taken for others, and images
that are wrong."""

import io
import shutil

import numpy as np
from PIL import Image

from assets.descriptions import metadata_of
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.plots.contact_sheet import Tile
from fomo_dagster.plots.thumbnails import GAP, LINE, SIZE, thumbnails
from fomo_dagster.tables.prediction_changes import errors_of
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


def files(folder):
    return {path: path.read_bytes() for path in folder.glob("[!.]*/**/*") if path.is_file()}


def test_an_evaluation_shows_images_of_what_is_wrong_and_changes_no_artifact(
    finished_project, monkeypatch
):
    home = finished_project.home
    graph = build_graph([finished_project.load()])
    context = RunContext(graph, home)
    shutil.rmtree(home.root / "cache" / "misread")  # as the run left it
    before = files(home.root / "store")
    assert before
    drawn = []
    monkeypatch.setattr(
        "fomo_dagster.plots.thumbnails.thumbnails",
        lambda tiles: drawn.append([tile.text.split()[-1] for tile in tiles]) or thumbnails(tiles),
    )

    def shown(key):
        return metadata_of(graph.nodes[key], materialise(key, context), context)

    found = {stage: errors_of(home, "toy", stage=stage, since=stage - 1)
             for stage in (1, 2, 3)}  # fmt: skip
    assert shown("toy/evaluation_000")["most_surely_wrong"].value.startswith(
        "![most surely wrong](data:image/jpeg;base64,"
    )
    surest = errors_of(home, "toy", stage=0).wrong.sort("probability_of_predicted")["predicted"][-1]
    assert drawn[0][0] == surest
    stage = next(stage for stage, errors in found.items() if errors.wrong.height)
    title = f"newly_wrong_since_stage_{stage - 1}"
    assert title in shown(f"toy/evaluation_{stage:03d}")
    assert set(drawn[1]) <= set(found[stage].wrong["predicted"])
    shown(f"toy/evaluation_{stage:03d}")
    assert len(drawn) == 2  # kept
    assert files(home.root / "store") == before
    (home.root / "cache" / "misread").rename(home.root / "kept")
    for shards in (home.root / "store" / "shards").glob("*/*.tar"):
        shards.unlink()
    outcome = materialise(f"toy/evaluation_{stage:03d}", context)
    assert title not in graph.nodes[outcome.head.asset].shown(outcome, context)


def test_thumbnails_are_small_and_cut_to_their_lines():
    tile = Tile(Image.new("CMYK", (1000, 500)), "a very long name of a concept", "93 % another")
    with Image.open(io.BytesIO(thumbnails([tile] * 7))) as sheet:
        assert sheet.size == (6 * (SIZE + 2 * GAP), 2 * (SIZE + 2 * LINE + 2 * GAP))
        white = sheet.convert("L").crop((SIZE + GAP + 2, 0, SIZE + 2 * GAP - 2, sheet.height))
        assert np.asarray(white).min() > 230  # no text beyond its image
