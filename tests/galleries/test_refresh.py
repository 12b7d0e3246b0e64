"""A gallery that is refreshed in pieces is searched whole all the time."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.galleries import groups
from fomo_dagster.galleries.files import EMBEDDINGS, EmbeddingsReader
from fomo_dagster.galleries.finding import embedded_gallery
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.gallery import GalleryNode
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.store.cleaning import clean


@pytest.fixture(autouse=True)
def in_small_groups(monkeypatch):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)


@pytest.fixture
def piecewise(shop):
    """A gallery that release 1 embedded whole, and whose next one does so in pieces."""
    shop.put_live(1)
    shop.make()
    shop.declare(refresh={"rows": 8})
    return shop


def rows_of(outcome):
    return EmbeddingsReader(outcome.artifacts[ONLY].path(EMBEDDINGS)).rows


def is_current(shop):
    context = shop.context()
    *_, entry = plan(context.graph.of_gallery("galleries/pets"), context)
    return entry.current


def until_whole(shop):
    """What each run makes, until nothing is left to do."""
    for _ in range(10):
        if is_current(shop):
            return
        yield shop.make()
    pytest.fail("it goes on and on")


def test_pieces_add_up_to_what_is_made_at_once(piecewise):
    assert is_current(piecewise)  # it is whole: pieces are for the next release
    piecewise.put_live(2)
    made = list(until_whole(piecewise))
    sizes = [rows_of(one) for one in made]
    assert len(sizes) >= 2
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 24
    assert all(later - former >= 8 for former, later in pairwise(sizes[:-1]))
    for one, before in zip(made[1:], sizes, strict=False):
        assert one.artifacts[ONLY].cost["copied"] == before
    last = made[-1].artifacts[ONLY].path(EMBEDDINGS).read_bytes()
    piecewise.declare()
    assert piecewise.make().head.digest == made[-1].head.digest
    piecewise.home.heads.remove("galleries/pets")
    piecewise.home.store.retire(*made[-1].head.artifacts[ONLY])
    at_once = piecewise.make()
    assert at_once.artifacts[ONLY].cost["samples"] == 24
    assert at_once.artifacts[ONLY].path(EMBEDDINGS).read_bytes() == last


def test_what_another_home_embedded_whole_is_taken_whole(piecewise):
    piecewise.put_live(2)
    *_, last = until_whole(piecewise)
    piecewise.home.heads.remove("galleries/pets")
    made = piecewise.make()
    assert (made.head.digest, made.computed) == (last.head.digest, ())
    assert is_current(piecewise)


def search_of(shop, number=None):
    return GallerySearch.of(shop.home, embedded_gallery(shop.home, "pets", number))


def test_a_plan_says_that_the_next_rows_are_due(piecewise):
    piecewise.put_live(2)
    piecewise.make()
    context = piecewise.context()
    *_, entry = plan(context.graph.of_gallery("galleries/pets"), context)
    assert entry.reasons == ("its next rows are embedded",)


def test_each_row_is_found_once_at_every_piece(piecewise):
    whole = search_of(piecewise).by_text("a robin", 24)
    piecewise.put_live(2)
    for made in until_whole(piecewise):
        found = search_of(piecewise).by_text("a robin", 24)
        assert found["rank"].to_list() == list(range(1, 25))
        assert sorted(found["key"]) == sorted(whole["key"])
        assert found["similarity"].is_sorted(descending=True)
        newer = search_of(piecewise, 2).by_text("a robin", 24)
        assert newer.height == rows_of(made)
        both = found.join(newer, on=["split", "key"])
        assert both["similarity"].to_list() == both["similarity_right"].to_list()


def test_the_rest_is_in_the_order_of_the_older_weights(piecewise):
    before = search_of(piecewise).by_text("a robin", 24)
    piecewise.put_live(2)
    piecewise.make()
    newer = search_of(piecewise, 2).by_text("a robin", 24).select("split", "key")
    found = search_of(piecewise).by_text("a robin", 24)
    rest = found.join(newer, on=["split", "key"], how="anti", maintain_order="left")
    expected = before.join(newer, on=["split", "key"], how="anti", maintain_order="left")
    assert rest["key"].to_list() == expected["key"].to_list()
    assert rest["similarity"].to_list() != expected["similarity"].to_list()


def test_another_release_in_the_middle_is_asked_too(piecewise):
    piecewise.put_live(2)
    piecewise.make()
    second = piecewise.make()
    piecewise.put_live(0)  # θ₀, as the third
    third = piecewise.make()
    assert rows_of(third) < rows_of(second)
    found = embedded_gallery(piecewise.home, "pets")
    assert [found.number, *(part.number for part in found.rest)] == [3, 2, 1]
    rows = search_of(piecewise).by_text("a robin", 24)
    assert rows.unique(["split", "key"]).height == 24
    assert list(until_whole(piecewise))
    assert embedded_gallery(piecewise.home, "pets").rest == ()


def test_a_rollback_in_the_middle_is_whole_at_once(piecewise, monkeypatch):
    piecewise.put_live(2)
    piecewise.make()
    monkeypatch.setattr(GalleryNode, "make", None)  # nothing more is made
    piecewise.go_back()
    back = piecewise.make()
    assert back.head.facts["number"] == 1
    assert back.head.facts["whole"]
    assert is_current(piecewise)


@pytest.mark.parametrize("half_way", [False, True])
def test_in_another_precision_all_rows_are_found_all_the_time(piecewise, half_way):
    if half_way:
        piecewise.put_live(2)
        piecewise.make()
    piecewise.declare(refresh={"rows": 8}, precision="bf16")
    assert search_of(piecewise).by_text("a robin", 24).height == 24
    made = piecewise.make()
    assert rows_of(made) == 24  # at once: what was there is not searched beside it
    assert search_of(piecewise).by_text("a robin", 24).height == 24
    if half_way:
        clean(piecewise.home.root, piecewise.home.store)
        assert search_of(piecewise, 1).by_text("a robin", 24).height == 24
    piecewise.declare(refresh={"rows": 8})
    assert rows_of(piecewise.make()) == 24
    assert is_current(piecewise)


def test_the_first_embedding_is_in_pieces_too(shop):
    shop.declare(refresh={"rows": 8})
    shop.put_live(1)
    first = shop.make()
    assert 8 <= rows_of(first) < 24
    assert search_of(shop).by_text("a robin", 24).height == rows_of(first)
    assert list(until_whole(shop))
    assert search_of(shop).by_text("a robin", 24).height == 24


def test_a_new_image_in_the_middle_is_found(piecewise):
    piecewise.put_live(2)
    first = piecewise.make()
    piecewise.project.add_image("birds", "test", "crow", 99)  # "test" comes first
    made = list(until_whole(piecewise))
    assert rows_of(made[-1]) == 25
    assert rows_of(made[0]) > rows_of(first)


def test_texts_of_one_image_stay_together(shop):
    shop.declare("names", of="texts", refresh={"rows": 1})
    shop.put_live(1)
    sizes = []
    for _ in range(6):
        sizes.append(rows_of(shop.make("names")))
        if shop.home.heads.read("galleries/names").facts["whole"]:
            break
    assert sizes[-1] == 4
    assert sizes == sorted(sizes)


def test_groups_end_where_an_image_does():
    rows = pl.DataFrame(
        {"split": ["train"] * 6, "key": ["a", "a", "a", "b", "b", "c"], "digest": [""] * 6}
    )
    each = [groups.Group(str(place), place, 1) for place in range(6)]
    assert [len(groups.first_groups(each, rows, count)) for count in (1, 3, 4, 6, 9)] == [
        3, 3, 5, 6, 6,
    ]  # fmt: skip


def test_cleaning_keeps_what_has_the_rest(piecewise):
    piecewise.put_live(2)
    piecewise.make()
    piecewise.put_live(0)
    piecewise.make()
    found = search_of(piecewise).by_text("a robin", 24)
    clean(piecewise.home.root, piecewise.home.store)
    assert search_of(piecewise).by_text("a robin", 24).equals(found)


@pytest.mark.parametrize("step", [1, 2])
def test_an_index_of_the_rest_is_gone_by(piecewise, step):
    pytest.importorskip("faiss")
    piecewise.declare(refresh={"rows": 8}, index={"type": "hnsw"})
    from fomo_dagster.graph.run.materialise import materialise

    piecewise.make()
    materialise("galleries/pets/index", piecewise.context())
    piecewise.put_live(2)
    for _ in range(step):
        piecewise.make()
        materialise("galleries/pets/index", piecewise.context())
    by_index = search_of(piecewise)
    assert [part.index is None for part in by_index.parts] == [True, False]
    assert not by_index.is_exact
    exact = GallerySearch.of(
        piecewise.home, embedded_gallery(piecewise.home, "pets"), exact=True
    ).by_text("a robin", 24)
    found = by_index.by_text("a robin", 24)
    assert found["key"].to_list() == exact["key"].to_list()
    assert np.allclose(found["similarity"], exact["similarity"], atol=1e-5)


def test_a_run_embeds_piece_after_piece(piecewise, monkeypatch):
    piecewise.put_live(2)
    monkeypatch.setenv("FOMO_PROJECT", str(piecewise.project.root))
    monkeypatch.setenv("FOMO_HOME", str(piecewise.home.root))
    piecewise.declare(refresh={"rows": 4})  # more pieces than a run has rounds otherwise
    done = CliRunner().invoke(app, ["run", "galleries/pets"])
    assert done.exit_code == 0, done.output
    assert "galleries/pets is up to date: 24 images, embedded by release 2" in done.output
    assert len(list(piecewise.home.root.glob("store/gallery/*"))) > 5
    piecewise.put_live(0)
    given_up = iter([False, False, True])
    make = GalleryNode.make

    def stopped(*arguments):
        if next(given_up):
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(GalleryNode, "make", stopped)
    assert CliRunner().invoke(app, ["run", "galleries/pets"]).exit_code != 0
    assert search_of(piecewise).by_text("a robin", 24).height == 24
    found = embedded_gallery(piecewise.home, "pets")
    assert (found.number, found.is_whole) == (3, False)


def test_a_search_says_who_answers(piecewise, monkeypatch):
    piecewise.put_live(2)
    made = piecewise.make()
    monkeypatch.chdir(piecewise.project.root)
    monkeypatch.setenv("FOMO_HOME", str(piecewise.home.root))
    said = CliRunner().invoke(app, ["search", "a robin", "--gallery", "pets"])
    assert said.exit_code == 0, said.output
    flat = " ".join(said.output.split())
    assert f"it has embedded {rows_of(made)} rows so far; the others are found by release 1" in flat
    told = CliRunner().invoke(app, ["search", "a robin", "--gallery", "pets", "--json"])
    data = json.loads(told.stdout)
    assert (data["number"], data["rest_by"], data["whole"]) == (2, [1], False)
