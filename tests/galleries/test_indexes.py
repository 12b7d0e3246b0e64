"""The index of a gallery as an asset: it follows the gallery, and searches go by it."""

import json

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.galleries import groups
from fomo_dagster.galleries.files import EmbeddingsReader
from fomo_dagster.galleries.finding import embedded_gallery
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.gallery_index import GalleryIndexNode
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.store.cleaning import clean
from fomo_dagster.tables.views import query

HNSW = {"type": "hnsw", "m": 4, "ef_construction": 20, "ef_search": 30}


@pytest.fixture
def indexed(shop):
    """A shop whose gallery declares an index."""
    shop.declare(index=HNSW)

    def make():
        shop.make()
        return materialise("galleries/pets/index", shop.context())

    shop.make_all = make
    return shop


def found(*arguments):
    result = CliRunner().invoke(
        app, ["search", *arguments, "--gallery", "pets", "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_index_is_made_and_searched_by(indexed):
    indexed.put_live(1)
    outcome = indexed.make_all()
    node = indexed.context().graph.nodes["galleries/pets/index"]
    assert node.shown(outcome, indexed.context()) == {"queries": 24, "recall_at_10": 100}
    row = query(indexed.home.root, "SELECT * FROM gallery_indexes").row(0, named=True)
    assert {
        **HNSW,
        "recall": 100,
        "rows": 24,
        "dimensions": 16,
        "release": 1,
    }.items() <= row.items()
    by_index, exact = found("a swan"), found("a swan", "--exact")
    assert (by_index["exact"], exact["exact"]) == (False, True)
    for one, other in zip(by_index["found"], exact["found"], strict=True):
        assert one.pop("similarity") == pytest.approx(other.pop("similarity"), abs=1e-5)
        assert one == other


def test_what_has_no_index_yet_is_searched_exactly(indexed):
    indexed.put_live(1)
    indexed.make_all()
    indexed.put_live(2)
    indexed.make()
    assert found("a swan")["exact"]
    assert not found("a swan", "--release", "1")["exact"]  # whose index is still there
    materialise("galleries/pets/index", indexed.context())
    assert not found("a swan")["exact"]


def test_where_the_rest_begins_is_looked_for_once(indexed, monkeypatch):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)
    indexed.put_live(1)
    indexed.make_all()
    indexed.declare(index=HNSW, refresh={"rows": 8})
    indexed.put_live(2)
    indexed.make()
    search = GallerySearch.of(indexed.home, embedded_gallery(indexed.home, "pets"))
    assert search.rest.index is not None
    count, looks = EmbeddingsReader.count_until, []
    monkeypatch.setattr(
        EmbeddingsReader, "count_until", lambda *of: looks.append(of[1:]) or count(*of)
    )
    found = [search.by_text(text, 24) for text in ("a swan", "a robin")]
    assert [rows.select("split", "key").n_unique() for rows in found] == [24, 24]
    assert len(looks) == 1


def test_going_back_finds_the_index_as_it_was(indexed, monkeypatch):
    indexed.put_live(1)
    first = indexed.make_all()
    indexed.put_live(2)
    indexed.make_all()
    clean(indexed.home.root, indexed.home.store)
    indexed.go_back()
    monkeypatch.setattr(GalleryIndexNode, "make", None)  # nothing more is made
    back = indexed.make_all()
    assert back.artifacts[ONLY].digest == first.artifacts[ONLY].digest


def test_other_settings_leave_the_embeddings_alone(indexed):
    indexed.put_live(1)
    first = indexed.make_all()
    indexed.declare(index={**HNSW, "m": 8})
    second = indexed.make_all()
    assert second.head.digest != first.head.digest
    recipes = [one.head.recipes[ONLY]["inputs"] for one in (first, second)]
    assert recipes[0] == recipes[1]


def test_an_empty_gallery_has_an_index_of_nothing(indexed):
    outcome = indexed.make_all()
    node = indexed.context().graph.nodes["galleries/pets/index"]
    assert node.shown(outcome, indexed.context()) == {"queries": 0}


def test_who_runs_the_gallery_or_its_experiment_gets_the_index(indexed):
    graph = indexed.context().graph
    keys = [node.key for node in graph.of_gallery("galleries/pets")]
    assert keys == ["shards/birds", "galleries/pets", "galleries/pets/index"]
    indexed.project.write("toy", release={"name": "shop"})
    keys = [node.key for node in indexed.context().graph.of("toy")]
    assert keys[-3:] == ["galleries/pets", "galleries/pets/index", "leaderboard"]
