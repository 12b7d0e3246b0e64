"""Accuracies against scikit-learn's and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.results import CONCEPT_METRICS, METRICS, EvaluationResult

NAMES = [f"class {c:02}" for c in range(12)]


def values_of(result: EvaluationResult) -> dict[str, float]:
    return dict(result.metrics.select("metric", "value").rows())


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
    result = classification_result(
        "birds", [NAMES[t] for t in targets], NAMES, features, embeddings
    )
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
    one = classification_result("birds", concepts, NAMES, features, embeddings)
    other = classification_result(
        "birds",
        [concepts[row] for row in rows],
        [NAMES[c] for c in classes],
        features[rows],
        embeddings[classes],
    )
    assert other.metrics.equals(one.metrics)
    assert other.concepts.equals(one.concepts)


def test_five_classes_have_no_top_5_accuracy() -> None:
    unit = np.eye(5, dtype=np.float32)
    result = classification_result("birds", NAMES[:5], NAMES[:5], unit, unit)
    assert values_of(result)["accuracy"] == 100
    assert "top_5_accuracy" not in values_of(result)


def test_a_model_that_tells_nothing_apart_is_not_right_everywhere() -> None:
    same = np.ones((12, 4), dtype=np.float32)
    result = classification_result("birds", NAMES, NAMES, same, same)
    assert values_of(result)["accuracy"] == pytest.approx(100 / 12)
    assert values_of(result)["top_5_accuracy"] == pytest.approx(500 / 12)


def test_a_sample_of_an_unknown_class_is_an_error_that_suggests_the_name() -> None:
    unit = np.eye(2, dtype=np.float32)
    with pytest.raises(DataError, match=r"'birds'.*'robins'.*did you mean 'robin'"):
        classification_result("birds", ["wren", "robins"], ["wren", "robin"], unit, unit)
