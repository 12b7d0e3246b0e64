"""Layer-stack temperature scaling: which weights are fitted, on which images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from fomo_dagster.evaluation.layer_temperature import (
    EncodedLayers,
    compared_metrics,
    fitted_weights,
    fold_weights,
    stacked_metrics,
)
from fomo_dagster.evaluation.temperature import Encoded, fold_temperatures, folds_of

CLASSES, SIZE, SCALE = 6, 8, 20.0
RANDOM = np.random.default_rng(0)
TEXTS = np.linalg.qr(RANDOM.normal(size=(SIZE, SIZE)))[0].astype(np.float32)


def unit(features):
    return (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)


def drawn_by(weights, images=3000, layers=None):
    """Images whose classes are drawn from the softmax of the layers' logits with these weights."""
    if layers is None:
        layers = unit(RANDOM.normal(size=(len(weights), images, SIZE)))
    logits = SCALE * np.tensordot(weights, layers, 1) @ TEXTS[:CLASSES].T
    targets = (logits + RANDOM.gumbel(size=logits.shape)).argmax(axis=1)
    folds = folds_of([str(i) for i in range(images)], 2, 0)
    return EncodedLayers(layers, Encoded(layers[-1], TEXTS[:CLASSES], targets, folds, SCALE))


def every(*datasets):
    return [np.ones(len(one.last.targets), bool) for one in datasets]


def test_the_weights_that_classes_were_drawn_by_are_found():
    one = drawn_by([0.3, 0.0, 0.7])
    assert fitted_weights([one], every(one)) == pytest.approx([0.3, 0, 0.7], abs=0.04)


def test_where_the_last_layer_alone_informs_it_is_temperature_scaling():
    layers = unit(RANDOM.normal(size=(3, 2000, SIZE)))
    beside = np.zeros_like(TEXTS)
    beside[CLASSES:] = TEXTS[CLASSES:]  # at a right angle to all texts
    layers[:2] = unit(layers[:2] @ beside.T @ beside)
    one = drawn_by([0, 0, 0.4], 2000, layers)
    temperatures, weights = fold_temperatures([one.last], 2), fold_weights([one], 2)
    for temperature, of_fold in zip(temperatures, weights, strict=True):
        assert of_fold == pytest.approx([0, 0, 1 / temperature], rel=1e-3, abs=1e-3)
    scaled, stacked = compared_metrics(one.last, temperatures), stacked_metrics(one, weights)
    for name, (value, images) in scaled.items():
        assert stacked[f"{name}_stacked"] == (pytest.approx(value, rel=0.01), images)
    assert stacked["accuracy_stacked"] == scaled["accuracy"]


def test_what_earlier_layers_know_raises_accuracy_and_lowers_the_loss():
    one = drawn_by([0.8, 0.2])
    scaled = compared_metrics(one.last, fold_temperatures([one.last], 2))
    stacked = stacked_metrics(one, fold_weights([one], 2))
    assert stacked["accuracy_stacked"][0] > scaled["accuracy"][0] + 10
    for name in ("negative_log_likelihood", "brier_score"):
        assert stacked[f"{name}_stacked"][0] < scaled[name][0]


def test_stacked_metrics_are_of_each_image_with_its_own_weights():
    one = drawn_by([0.5, 0.5], 300)
    weights = np.array([0.2, 1.0]), np.array([0.7, 0.1])
    found = stacked_metrics(one, weights)
    logits = np.zeros((300, CLASSES))
    for image, fold in enumerate(one.last.folds):
        for layer, weight in enumerate(weights[fold]):
            logits[image] += SCALE * weight * (one.layers[layer, image] @ TEXTS[:CLASSES].T)
    shares = np.exp(log_softmax(logits, axis=1))
    loss = log_loss(one.last.targets, shares, labels=np.arange(CLASSES))
    assert found["negative_log_likelihood_stacked"] == (pytest.approx(loss, rel=1e-5), 300)
    right = 100 * (logits.argmax(axis=1) == one.last.targets).mean()
    assert found["accuracy_stacked"] == (pytest.approx(right), 300)
    assert [found[f"layer_weight_{n}"][0] for n in (1, 2)] == pytest.approx([0.45, 0.55])


def test_no_image_decides_the_weights_of_its_own_votes():
    one = drawn_by([0.5, 0.5], 400)
    targets = np.where(one.last.folds == 0, 0, one.last.targets)
    before = fold_weights([one], 2)
    after = fold_weights([EncodedLayers(one.layers, replace(one.last, targets=targets))], 2)
    assert np.array_equal(after[0], before[0])
    assert not np.allclose(after[1], before[1])


def test_datasets_weigh_the_same_and_one_image_keeps_the_model():
    large, small = drawn_by([1, 0]), drawn_by([0, 1], 500)
    weights = fitted_weights([large, small], every(large, small))
    assert weights[0] == pytest.approx(weights[1], rel=0.1)
    alone = drawn_by([1, 0, 0], 1)
    assert fold_weights([alone], 2)[alone.last.folds[0]].tolist() == [0, 0, 1]
