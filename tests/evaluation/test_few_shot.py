"""Few-shot measures: which images are drawn, and what is predicted from them."""

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import cdist

from fomo_dagster.evaluation.few_shot import (
    Labelled,
    best_place,
    drawn_images,
    few_shot_results,
    grid_of,
    nearest_class_mean,
    remarks_of,
)
from fomo_dagster.experiment.evaluation import FewShot, Strengths

SIZES = {"crow": 12, "robin": 40, "wren": 2}


def training_rows(sizes):
    rows = [(c, f"{c}{i:02d}", f"{c} image {i}") for c, n in sizes.items() for i in range(n)]
    return pl.DataFrame(rows, schema=["concept", "key", "digest"], orient="row")


def shots_of(drawn, most):
    few = drawn.filter(pl.col("shot") < most)
    return {c: set(keys) for c, keys in few.group_by("concept").agg("key").iter_rows()}


def test_more_shots_contain_the_fewer_whatever_else_is_asked_for():
    rows = training_rows(SIZES)
    drawn = drawn_images(rows, FewShot(shots=[5, 1, 10]))
    one, five = shots_of(drawn, 1), shots_of(drawn, 5)
    assert {concept: len(keys) for concept, keys in five.items()} == {
        "crow": 5, "robin": 5, "wren": 2,
    }  # fmt: skip
    assert all(one[concept] < five[concept] for concept in five)
    assert shots_of(drawn_images(rows.reverse(), FewShot(shots=[5])), 5) == five
    fewer = training_rows(SIZES | {"crow": 3})
    assert shots_of(drawn_images(fewer, FewShot()), 5)["robin"] == five["robin"]
    assert shots_of(drawn_images(rows, FewShot(seed=1)), 5) != five


def test_c_is_chosen_on_images_that_are_no_shots_and_few_of_a_class():
    drawn = drawn_images(training_rows(SIZES), FewShot(shots=[100]))
    choosing = drawn.filter(pl.col("shot").is_null())
    assert dict(choosing["concept"].value_counts().iter_rows()) == {"crow": 3, "robin": 4}
    assert len(drawn) == drawn["key"].n_unique() == 54
    places = drawn.filter(concept="crow")["shot"].drop_nulls().sort().to_list()
    assert places == list(range(9))


def test_an_image_that_is_stored_twice_is_one_shot():
    rows = training_rows({"crow": 3})
    twice = pl.concat([rows, rows.with_columns(key=pl.lit("again ") + pl.col("key"))])
    assert len(drawn_images(twice, FewShot())) == 3


def test_what_is_short_is_said():
    few_shot = FewShot(shots=[10])
    concepts = ["crow", "robin", "wren", "swan"]
    said = remarks_of("birds", SIZES, concepts, few_shot)
    assert "3 concepts with fewer than 10 images to give as shots, such as 'swan' with 0" in said
    assert "linear probes" not in said
    assert "linear probes are left out" in remarks_of("birds", {"wren": 3}, ["wren"], few_shot)
    assert "no training split" in remarks_of("birds", {}, ["wren"], few_shot)
    assert remarks_of("birds", {"robin": 40}, ["robin"], few_shot) is None


def test_the_grid_is_even_in_its_logarithm():
    grid = grid_of(Strengths(lowest=1e-3, highest=1e2, per_decade=4))
    assert len(grid) == 21
    assert np.diff(np.log10(grid)) == pytest.approx(np.full(20, 0.25))
    assert grid_of(Strengths(lowest=2, highest=2)).tolist() == [2]


def test_the_search_finds_a_peak_without_trying_every_value():
    tried = []

    def value(place):
        tried.append(place)
        return -abs(place - 41)

    assert best_place(97, 16, value) == 41
    assert len(tried) == len(set(tried)) <= 15
    assert best_place(97, 16, lambda place: 0) == 0  # the strongest regularisation, of equals


def clusters(images_per_class, classes=3, spread=0.3):
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(classes), images_per_class)
    features = np.eye(classes, 8)[targets] + spread * random.normal(size=(len(targets), 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Labelled(features.astype(np.float32), targets)


def test_the_nearest_class_mean_is_the_one_of_highest_cosine():
    few, test = clusters(5), clusters(40, spread=0.5)
    means = [few.features[few.classes == c].mean(axis=0) for c in range(3)]
    expected = cdist(test.features, means, "cosine").argmin(axis=1)
    found = nearest_class_mean(few, test.features)
    assert found.tolist() == expected.tolist()
    assert 0.5 < (found == test.classes).mean() < 1


def test_each_number_of_shots_has_a_probe_and_its_chosen_c():
    few, choosing, test = clusters(8), clusters(4), clusters(50)
    places = np.tile(np.arange(8), 3)
    grid = Strengths(lowest=1e-2, highest=1e2, per_decade=1)
    asked = FewShot(shots=[1, 8], regularisation=grid)
    values, chosen = few_shot_results(few, places, choosing, test, asked)
    assert {name: samples for name, (_, samples) in values.items()} == dict.fromkeys(
        ("linear_probe_1_shot", "nearest_class_mean_1_shot", "linear_probe_8_shot",
         "nearest_class_mean_8_shot"), 150,
    )  # fmt: skip
    assert values["linear_probe_8_shot"][0] > 90
    assert chosen["shots"].to_list() == [1, 8]
    assert set(chosen["C"].round(9)) <= set(grid_of(grid).round(9))


def test_without_images_to_choose_c_on_there_are_class_means_alone():
    none = Labelled(np.zeros((0, 8), np.float32), np.zeros(0, int))
    places = np.tile(np.arange(5), 3)
    few = FewShot(shots=[5])
    values, chosen = few_shot_results(clusters(5), places, none, clusters(9), few)
    assert list(values) == ["nearest_class_mean_5_shot"]
    assert chosen.is_empty()


def test_a_class_without_shots_is_never_predicted():
    few, test = clusters(4, spread=0.1), clusters(10, spread=0.1)
    known = few.classes < 2
    few = Labelled(few.features[known], few.classes[known])
    asked = FewShot(shots=[4], regularisation=Strengths(lowest=1, highest=1))
    values, _ = few_shot_results(few, np.tile(np.arange(4), 2), few, test, asked)
    assert values["linear_probe_4_shot"][0] == values["nearest_class_mean_4_shot"][0]
    assert values["linear_probe_4_shot"][0] == pytest.approx(200 / 3)
