"""How far two models' embeddings are apart, and what a refresh would change."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.drift import _nearest, drift_of, linear_map
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.releases.promoting import give_alias
from fomo_dagster.tables.views import query
from tests.galleries.test_galleries import embedded


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def old():
    return unit(np.random.default_rng(0).normal(size=(400, 8)))


def measured(old, new, concepts=None):
    rows = drift_of(old, new, concepts or ["all"] * len(old))
    whole = rows.filter(pl.col("concept").is_null())
    return dict(whole.select("metric", "value").rows()), rows


def test_the_same_embeddings_have_not_drifted(old):
    found, _ = measured(old, old)
    assert found == pytest.approx(
        {"cosine": 1, "recall_old_queries": 100, "recall_new_queries": 100,
         "recall_compensated": 100}
    )  # fmt: skip


def test_of_equally_near_rows_the_first_are_taken():
    corners = np.random.default_rng(3).integers(0, 2, size=(300, 4)).astype(np.float32)
    own = np.arange(0, 300, 7)
    similarities = corners[own] @ corners.T
    similarities[np.arange(len(own)), own] = -np.inf
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(_nearest(corners[own], corners, own), expected)
    few = _nearest(corners[:2], corners[:3], np.arange(2))
    assert [sorted(row) for row in few.tolist()] == [[1, 2], [0, 2]]


def test_a_map_takes_back_what_turned_all_embeddings(old):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    found, _ = measured(old, unit(old @ turn))
    assert found["recall_old_queries"] == pytest.approx(100)  # angles are the same
    assert found["recall_compensated"] == pytest.approx(100)
    assert found["recall_new_queries"] < 40
    assert found["cosine"] == pytest.approx(float(np.mean((old * (old @ turn)).sum(1))), abs=1e-6)


def test_recalls_are_those_of_a_loop(old):
    noise = np.random.default_rng(2).normal(size=(400, 8))
    new = unit(old + 0.3 * noise)
    found, rows = measured(old, new)
    queries = np.linspace(0, 399, 100).round().astype(int)
    rest = [row for row in range(400) if row not in queries]
    mapping = linear_map(new[rest], old[rest])
    shares = {"recall_old_queries": [], "recall_new_queries": [], "recall_compensated": []}
    for own in queries:
        others = [row for row in range(400) if row != own]
        right = set(sorted(others, key=lambda row: -float(new[own] @ new[row]))[:10])
        for metric, asked in (
            ("recall_old_queries", old[own]), ("recall_new_queries", new[own]),
            ("recall_compensated", new[own] @ mapping),
        ):  # fmt: skip
            given = set(sorted(others, key=lambda row: -float(asked @ old[row]))[:10])
            shares[metric].append(len(right & given) / 10)
    for metric, of in shares.items():
        assert found[metric] == pytest.approx(100 * np.mean(of), abs=0.2)
    assert set(rows["samples"]) == {400, 100}


def test_each_mean_has_its_interval(old):
    new = unit(old + 0.3 * np.random.default_rng(2).normal(size=(400, 8)))
    _, rows = measured(old, new)
    cosine = rows.row(0, named=True)
    values = (old * new).sum(axis=1).astype(float)
    width = stats.t.ppf(0.975, 399) * values.std(ddof=1) / np.sqrt(400)
    assert cosine["low"] == pytest.approx(cosine["value"] - width)
    assert cosine["high"] == pytest.approx(cosine["value"] + width)
    recall = rows.filter(metric="recall_new_queries").row(0, named=True)
    assert 0 < recall["low"] < recall["value"] < recall["high"] < 100
    _, rows = measured(old, old)  # where all say the same, that is no certainty
    recall = rows.filter(metric="recall_new_queries").row(0, named=True)
    assert 95 < recall["low"] < recall["high"] == 100


def test_models_of_two_sizes_meet_through_the_map_alone(old):
    new = unit(np.concatenate([old, 0.1 * np.ones((400, 1))], axis=1))
    found, rows = measured(old, new)
    assert found.keys() == {"recall_old_queries", "recall_compensated"}
    assert found["recall_compensated"] > 99
    assert rows["concept"].null_count() == rows.height


def test_each_concept_has_its_cosine(old):
    new = old.copy()
    new[200:] = -new[200:]
    _, rows = measured(old, new, ["kept"] * 200 + ["turned"] * 200)
    concepts = rows.drop_nulls("concept").select("concept", "value", "samples").rows()
    assert concepts == [("kept", pytest.approx(1), 200), ("turned", pytest.approx(-1), 200)]


def test_a_few_rows_have_cosines_alone(old):
    found, _ = measured(old[:3], old[:3])
    assert found == {"cosine": pytest.approx(1)}


@pytest.mark.parametrize("of", ["images", "texts"])
def test_the_drift_of_a_gallery_is_from_what_is_live(shop, of):
    shop.declare(follows="kept", drift={"samples": 12}, of=of)
    shop.put_live(1)
    give_alias(shop.log, "kept", 1)

    def drift():
        made = shop.make()
        return made, materialise("galleries/pets/drift", shop.context())

    _, none = drift()
    node = shop.context().graph.nodes["galleries/pets/drift"]
    assert node.shown(none, shop.context()) == {"drift": "none: nothing else is live"}
    assert query(shop.home.root, "SELECT count(*) FROM gallery_drift").item() == 0
    shop.put_live(3)
    gallery, made = drift()
    assert gallery.head.facts["number"] == 1
    shop.declare("live", of=of)
    old, new = embedded(gallery), embedded(shop.make("live"))
    places = np.linspace(0, len(old) - 1, min(12, len(old))).round().astype(int)
    expected = drift_of(
        *(rows["embedding"].to_numpy()[places] for rows in (old, new)),
        [old["concept"][int(place)] for place in places],
    )
    rows = query(shop.home.root, "SELECT * FROM gallery_drift")
    assert set(rows["release"]) == {1}
    assert set(rows["live"]) == {2}
    assert_frame_equal(rows.select(expected.columns), expected, abs_tol=1e-4)
    shown = node.shown(made, shop.context())
    assert shown["cosine"] < 1
    assert set(shown["concepts"]["concept"]) <= {"crow", "robin", "swan", "wren"}
    assert made.artifacts[ONLY].cost["samples"] == len(places)


def test_a_gallery_that_follows_what_is_live_has_no_drift(shop):
    shop.declare(drift={})
    (trouble,) = shop.context().graph.troubles
    with pytest.raises(InputError, match="drift is from what is live, which embeds this gallery"):
        raise trouble.error
