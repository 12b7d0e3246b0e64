"""Recalls against plain loops."""

from __future__ import annotations

from math import comb
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.ranking import Floats
from fomo_dagster.evaluation.results import CONCEPT_METRICS, METRICS
from fomo_dagster.evaluation.retrieval import images_of, retrieval_result


def table(rows: list[tuple[str, str, list[str], str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["key", "concept", "captions", "digest"], orient="row")


def recalls_by_loops(
    owners: list[int], images: Floats, captions: Floats, chosen: set[int], k: int
) -> tuple[float, float]:
    """Image-to-text and text-to-image recall@k in percent, of the chosen images as queries."""
    similarity = images.astype(np.float64) @ captions.T.astype(np.float64)
    found = []
    for image in sorted(chosen):
        top = sorted(range(len(captions)), key=lambda c: -similarity[image, c])[:k]
        found.append(any(owners[caption] == image for caption in top))
    placed = []
    for caption, owner in enumerate(owners):
        if owner in chosen:
            top = sorted(range(len(images)), key=lambda i: -similarity[i, caption])[:k]
            placed.append(owner in top)
    return 100 * fmean(found), 100 * fmean(placed)


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=25),
    seed=st.integers(0, 2**32),
    noise=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_recalls_are_those_of_plain_loops(counts: list[int], seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    owners = [image for image, count in enumerate(counts) for _ in range(count)]
    image_features = rng.normal(size=(len(counts), 6)).astype(np.float32)
    caption_features = (image_features[owners] + noise * rng.normal(size=(len(owners), 6))).astype(
        np.float32
    )
    concepts = [f"concept {rng.integers(3)}" for _ in counts]
    images = table(
        [
            (f"{image:03}", concepts[image], [f"{image} {c}" for c in range(count)], str(image))
            for image, count in enumerate(counts)
        ]
    )
    result = retrieval_result("scenes", images, image_features, caption_features)
    everything = set(range(len(counts)))
    expected: dict[str, tuple[float, int]] = {}
    for k in (1, 5, 10):
        to_text, to_image = recalls_by_loops(
            owners, image_features, caption_features, everything, k
        )
        expected[f"image_to_text_recall@{k}"] = (to_text, len(counts))
        expected[f"text_to_image_recall@{k}"] = (to_image, len(owners))
        expected[f"recall@{k}"] = ((to_text + to_image) / 2, len(counts))
    expected["score"] = expected["recall@5"]
    drawn = min(5, len(owners))
    missed = [comb(len(owners) - n, drawn) / comb(len(owners), drawn) for n in counts]
    to_text = 100 * (1 - fmean(missed))
    to_image = 100 * min(5, len(counts)) / len(counts)
    expected["chance"] = ((to_text + to_image) / 2, len(counts))
    found = {metric: (value, n) for *_, metric, value, n in result.metrics.rows()}
    assert found == {k: (pytest.approx(value, abs=1e-9), n) for k, (value, n) in expected.items()}
    assert dict(result.metrics.schema) == METRICS
    assert result.metrics.select("dataset", "task").unique().rows() == [("scenes", "retrieval")]

    per_concept = []
    for concept in sorted(set(concepts)):
        chosen = {image for image in everything if concepts[image] == concept}
        both = recalls_by_loops(owners, image_features, caption_features, chosen, 5)
        value = pytest.approx(fmean(both), abs=1e-9)
        per_concept.append(("scenes", concept, "recall@5", value, len(chosen)))
    assert result.concepts.rows() == per_concept
    assert dict(result.concepts.schema) == CONCEPT_METRICS


def test_a_model_that_tells_nothing_apart_finds_what_chance_finds() -> None:
    images = table([(f"{i:03}", "any", [f"caption {i}"], str(i)) for i in range(50)])
    same = np.ones((50, 4), dtype=np.float32)
    result = retrieval_result("scenes", images, same, same)
    found = dict(result.metrics.select("metric", "value").rows())
    assert [found[f"recall@{k}"] for k in (1, 5, 10)] == [2.0, 10.0, 20.0]


def test_an_image_stored_under_two_keys_is_one_with_the_captions_of_both() -> None:
    samples = table(
        [
            ("b", "two", ["third"], "same"),
            ("c", "two", ["fourth"], "other"),
            ("a", "one", ["first", "second"], "same"),
        ]
    )
    assert images_of("scenes", samples).rows() == [
        ("a", "one", ["first", "second", "third"], "same"),
        ("c", "two", ["fourth"], "other"),
    ]


def test_images_without_caption_are_counted_and_named() -> None:
    samples = table(
        [("good", "any", ["text"], "good"), *((f"bad {i}", "any", [], str(i)) for i in range(7))]
    )
    with pytest.raises(
        DataError, match=r"7 test images .*'scenes' .*\('bad 0', .*'bad 4', …\).*classification"
    ):
        images_of("scenes", samples)


def test_each_image_and_each_caption_has_a_prediction() -> None:
    images = table(
        [("a", "birds", ["0", "1"], "a"), ("b", "cats", ["2"], "b"), ("c", "cats", ["3"], "c")]
    )
    of_images = np.eye(3, dtype=np.float32)
    of_captions = np.array([[0.5, 1, 0], [1, 0, 0], [0, 0.25, 0.5], [0, 0, 1]], np.float32)
    found = retrieval_result("scenes", images, of_images, of_captions).predictions
    assert found.select("query", "key", "caption", "concept", "rank", "predicted").rows() == [
        ("image", "a", None, "birds", 0, "a"),
        ("image", "b", None, "cats", 1, "a"),
        ("image", "c", None, "cats", 0, "c"),
        ("caption", "a", 0, "birds", 1, "b"),
        ("caption", "a", 1, "birds", 0, "a"),
        ("caption", "b", 0, "cats", 1, "c"),
        ("caption", "c", 0, "cats", 0, "c"),
    ]
    assert found["margin"].to_list() == [1.0, -0.75, 0.5, -0.5, 1.0, -0.25, 1.0]
    assert found.select("probability", "probability_of_predicted").null_count().row(0) == (7, 7)
