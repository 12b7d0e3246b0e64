"""The background that transparency shows: a changed one recomputes what it touches, and says so."""

import numpy as np
import pytest
import yaml
from PIL import Image

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.data.decoding import DEFAULT
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.progress import Callbacks
from fomo_dagster.tables.views import query


def draw(path, value):
    """A drawing of which only its alpha channel tells anything."""
    drawing = Image.new("RGBA", (18, 18), (value, value, value, 0))
    drawing.paste((value, value, value, 255), (4, 4, 12, 12))
    drawing.save(path)


def declare(project, dataset, **settings):
    path = project.root / "datasets/toy.yaml"
    declared = yaml.safe_load(path.read_text())
    declared[dataset] |= settings
    path.write_text(yaml.safe_dump(declared))


def planned():
    return {e.asset: set(e.compute) for e in resolve_request("toy", []).plan() if e.compute}


def run(*assets):
    """Materialise assets of the experiment, by default all; what was to be said."""
    request = resolve_request("toy", [])
    said = []
    context = RunContext(request.graph, request.home, callbacks=Callbacks(warn=said.append))
    for key in assets or [node.key for node in request.graph.of("toy")]:
        materialise(key, context)
    return said


def only(*assets):
    return {asset: {"only"} for asset in assets}


def evaluations(dataset, stages):
    return {f"toy/evaluation_{stage:03d}": {dataset} for stage in stages}


SUMMARY = only("toy/scores", "leaderboard")


@pytest.fixture
def with_drawings(project):
    """One in what chunk 2 brings, and one to test on."""
    draw(project.root / "images/birds/train/swan/0.png", 0)
    draw(project.root / "images/old/test/red/0.png", 255)
    return project


@pytest.mark.slow
def test_a_changed_background_recomputes_what_it_touches_and_no_more(with_drawings):
    said = " ".join(run())
    assert "1 of 24 images of dataset 'birds' have transparency, which shows the background" in said
    assert "1 of 18 images of dataset 'old' are of one colour alone: 'red/0.png'" in said
    assert planned() == {}
    rows = query(with_drawings.home.root, "SELECT dataset, transparent, flat FROM datasets")
    assert sorted(rows.rows()) == [("birds", 1, 0), ("cats", 0, 0), ("old", 1, 1)]

    declare(with_drawings, "cats", background="black")  # of which all images are opaque
    assert planned() == only("shards/cats")
    declare(with_drawings, "cats", background="white")
    assert planned() == {}
    declare(with_drawings, "old", background="#123456")
    on_old = only("shards/old") | evaluations("old", range(4)) | SUMMARY
    assert planned() == on_old
    declare(with_drawings, "old", background="white")
    declare(with_drawings, "birds", background="red")
    expected = {
        **only("shards/birds", "streams/toy/chunk_002", "toy/trained_002", "toy/trained_003"),
        **{f"toy/evaluation_{stage:03d}": {"birds", "cats", "old"} for stage in (2, 3)},
        **SUMMARY,
    }
    assert planned() == expected
    run("shards/birds")  # what it made is what the plan foresaw
    assert planned() == {asset: names for asset, names in expected.items() if "shards" not in asset}


@pytest.mark.parametrize("resize", [None, 9])
def test_every_reader_of_shards_shows_the_declared_background(with_drawings, resize):
    declare(with_drawings, "birds", background="#00ff00", resize=resize)
    context = RunContext(resolve_request("toy", []).graph, with_drawings.home)
    materialise("shards/birds", context)
    index = index_of("birds", context)
    row = index.rows("train").filter(key="swan/0.png")
    picture = np.asarray(index.picture(*row.select("shard", "offset", "size").row(0)))
    assert picture[0, 0].tolist() == [0, 255, 0]
    assert picture[len(picture) // 2, len(picture) // 2].tolist() == [0, 0, 0]
    plain = index.rows("train").filter(key="swan/1.png")["digest"].item()
    declare(with_drawings, "birds", background="white", resize=resize)
    again = RunContext(resolve_request("toy", []).graph, with_drawings.home)
    materialise("shards/birds", again)
    assert index_of("birds", again).decoding == DEFAULT
    digests = dict(index_of("birds", again).rows("train").select("key", "digest").iter_rows())
    assert digests["swan/1.png"] == plain
    assert digests["swan/0.png"] != row["digest"].item()


@pytest.mark.parametrize(
    "colour", ["nosuchcolour", "#12345", "#11223344", "rgba(1,2,3,4)", "", "7"]
)
def test_what_is_no_opaque_colour_is_refused(project, colour):
    declare(project, "birds", background=colour)
    with pytest.raises(Exception, match="is not an opaque colour"):
        resolve_request("toy", [])
