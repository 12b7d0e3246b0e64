"""Accuracies against scikit-learn's and plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.ranking import Floats
from fomo_dagster.evaluation.results import CONCEPT_METRICS, METRICS, EvaluationResult
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS

NAMES = [f"class {c:02}" for c in range(12)]


def values_of(result: EvaluationResult) -> dict[str, float]:
    return dict(result.metrics.select("metric", "value").rows())


def classify(
    concepts: Sequence[str], classes: Sequence[str], features: Floats, embeddings: Floats
) -> EvaluationResult:
    keys = [f"{concept}/{place}" for place, concept in enumerate(concepts)]
    images = pl.DataFrame({"key": keys, "concept": concepts})
    return classification_result("birds", images, classes, features, embeddings, scale=3.0)


def a_test_split(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Targets (N,) that leave out the classes 0 and 5, features (N, D), embeddings (C, D)."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([1, 2, 3, 4, 6, 7, 8, 9, 10, 11], 157, p=np.arange(1, 11) / 55)
    embeddings = rng.normal(size=(12, 8)).astype(np.float32)
    features = (embeddings[targets] + 2 * rng.normal(size=(157, 8))).astype(np.float32)
    return targets, features, embeddings


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_scikit_learns(seed: int) -> None:
    from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

    targets, features, embeddings = a_test_split(seed)
    result = classify([NAMES[t] for t in targets], NAMES, features, embeddings)
    logits = features.astype(np.float64) @ embeddings.T.astype(np.float64)
    predicted = logits.argmax(axis=1)
    accuracy = 100 * accuracy_score(targets, predicted)
    expected = {
        "score": accuracy,
        "accuracy": accuracy,
        "mean_per_class_accuracy": 100
        * recall_score(targets, predicted, labels=sorted(set(targets)), average="macro"),
        "top_5_accuracy": 100 * top_k_accuracy_score(targets, logits, k=5, labels=range(12)),
    }
    values = values_of(result)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert dict(result.metrics.schema) == METRICS
    assert result.metrics.select("dataset", "task", "samples").unique().rows() == [
        ("birds", "classification", 157)
    ]
    assert dict(result.concepts.schema) == CONCEPT_METRICS
    assert result.concepts.rows() == [
        ("birds", NAMES[c], "accuracy", 100 * (predicted[of] == c).sum() / of.sum(), of.sum())
        for c in sorted(set(targets))
        if (of := targets == c).any()
    ]


def test_the_order_of_classes_and_samples_changes_no_number() -> None:
    targets, features, embeddings = a_test_split(0)
    concepts = [NAMES[t] for t in targets]
    rng = np.random.default_rng(1)
    classes, rows = rng.permutation(12), rng.permutation(157)
    one = classify(concepts, NAMES, features, embeddings)
    other = classify(
        [concepts[row] for row in rows],
        [NAMES[c] for c in classes],
        features[rows],
        embeddings[classes],
    )
    assert other.metrics.equals(one.metrics)
    assert other.concepts.equals(one.concepts)


def test_five_classes_have_no_top_5_accuracy() -> None:
    unit = np.eye(5, dtype=np.float32)
    result = classify(NAMES[:5], NAMES[:5], unit, unit)
    assert values_of(result)["accuracy"] == 100
    assert "top_5_accuracy" not in values_of(result)


def test_a_model_that_tells_nothing_apart_is_not_right_everywhere() -> None:
    same = np.ones((12, 4), dtype=np.float32)
    result = classify(NAMES, NAMES, same, same)
    assert values_of(result)["accuracy"] == pytest.approx(100 / 12)
    assert values_of(result)["top_5_accuracy"] == pytest.approx(500 / 12)


def test_a_sample_of_an_unknown_class_is_an_error_that_suggests_the_name() -> None:
    unit = np.eye(2, dtype=np.float32)
    with pytest.raises(DataError, match=r"'birds'.*'robins'.*did you mean 'robin'"):
        classify(["wren", "robins"], ["wren", "robin"], unit, unit)


def test_each_image_has_a_prediction_with_its_probabilities() -> None:
    targets, features, embeddings = a_test_split(0)
    found = classify([NAMES[t] for t in targets], NAMES, features, embeddings).predictions
    similarities = features.astype(np.float64) @ embeddings.T.astype(np.float64)
    shares = softmax(3 * similarities, axis=1)
    rows, predicted = np.arange(157), similarities.argmax(axis=1)
    others = similarities.copy()
    others[rows, targets] = -np.inf
    assert dict(found.schema) == PREDICTION_COLUMNS
    assert found["key"].to_list() == [f"{NAMES[t]}/{place}" for place, t in enumerate(targets)]
    assert found["concept"].to_list() == [NAMES[t] for t in targets]
    assert found["predicted"].to_list() == [NAMES[p] for p in predicted]
    assert found["rank"].to_list() == (others > similarities[rows, targets, None]).sum(1).tolist()
    half = {"rel": 1e-3, "abs": 1e-7}
    assert found["probability"].to_list() == pytest.approx(shares[rows, targets], **half)
    assert found["probability_of_predicted"].to_list() == pytest.approx(shares.max(1), **half)
    margins = similarities[rows, targets] - others.max(axis=1)
    assert found["margin"].to_list() == pytest.approx(margins, rel=1e-3, abs=1e-5)
    assert found["query"].unique().to_list() == ["image"]
    assert found["caption"].null_count() == 157


def test_where_no_class_is_wrong_nothing_has_a_margin() -> None:
    unit = np.eye(1, dtype=np.float32)
    (row,) = classify(["wren"], ["wren"], unit, unit).predictions.to_dicts()
    assert (row["rank"], row["probability"], row["margin"]) == (0, 1.0, None)
