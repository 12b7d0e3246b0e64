"""Temperature scaling: what is fitted, on which images, and what it changes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from fomo_dagster.evaluation.temperature import (
    Encoded,
    fitted_temperature,
    fold_temperatures,
    folds_of,
    scaled_metrics,
)

CLASSES = 6


def drawn_from(temperature, images=3000, seed=0, scale=20.0):
    """Images whose classes are drawn from the softmax at this temperature."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    classes = np.linalg.qr(random.normal(size=(8, 8)))[0][:CLASSES]
    logits = scale * features @ classes.T / temperature
    gumbel = random.gumbel(size=logits.shape)
    folds = folds_of([f"{seed} {i}" for i in range(images)], 2, 0)
    return Encoded(
        features.astype(np.float32), classes.astype(np.float32), (logits + gumbel).argmax(axis=1),
        folds, scale,
    )  # fmt: skip


def every(*datasets):
    return [np.ones(len(one.targets), bool) for one in datasets]


def logits_of(encoded, temperature):
    products = encoded.images.astype(float) @ encoded.classes.T.astype(float)
    return encoded.scale * products / temperature


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_that_classes_were_drawn_at_is_found(temperature):
    one = drawn_from(temperature)
    found = fitted_temperature([one], every(one))
    assert found == pytest.approx(temperature, rel=0.1)
    # At the minimum the derivative is 0: mean logit of the true class = mean expected logit.
    logits = logits_of(one, found)
    shares = np.exp(log_softmax(logits, axis=1))
    true = logits[np.arange(len(logits)), one.targets].mean()
    assert true == pytest.approx((shares * logits).sum(axis=1).mean(), rel=1e-3)


def test_every_dataset_weighs_the_same_however_many_images_it_has():
    sure, unsure = drawn_from(4.0), drawn_from(0.5, images=400, seed=1)
    places = np.tile(np.arange(400), 5)
    more = replace(
        unsure, images=unsure.images[places], targets=unsure.targets[places],
        folds=unsure.folds[places],
    )  # fmt: skip
    expected = fitted_temperature([sure, unsure], every(sure, unsure))
    assert fitted_temperature([sure, more], every(sure, more)) == pytest.approx(expected)
    assert fitted_temperature([sure], every(sure)) > expected + 0.5


def test_no_image_decides_the_temperature_that_it_is_scaled_by():
    one = drawn_from(2.0, images=500)
    other = replace(one, targets=np.where(one.folds == 0, 0, one.targets))
    before, after = fold_temperatures([one], 2), fold_temperatures([other], 2)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_folds_are_of_equal_size_and_do_not_depend_on_the_order():
    keys = [f"image {i}" for i in range(31)]
    folds = dict(zip(keys, folds_of(keys, 3, 0), strict=True))
    assert sorted(np.bincount(list(folds.values()))) == [10, 10, 11]
    assert dict(zip(keys[::-1], folds_of(keys[::-1], 3, 0), strict=True)) == folds
    assert dict(zip(keys, folds_of(keys, 3, 1), strict=True)) != folds


def test_scaled_metrics_are_of_each_image_at_its_own_temperature():
    one = drawn_from(2.0, images=300)
    temperatures = (1.5, 2.5)
    found = scaled_metrics(one, temperatures)
    logits = logits_of(one, np.array(temperatures)[one.folds][:, None])
    shares = np.exp(log_softmax(logits, axis=1))
    loss = log_loss(one.targets, shares, labels=np.arange(CLASSES))
    assert found["negative_log_likelihood_scaled"] == (pytest.approx(loss, rel=1e-5), 300)
    brier = 100 * np.square(shares - np.eye(CLASSES)[one.targets]).sum(axis=1).mean()
    assert found["brier_score_scaled"][0] == pytest.approx(brier, rel=1e-5)
    assert found["temperature"] == (pytest.approx(np.sqrt(1.5 * 2.5)), 300)


def test_a_fitted_temperature_calibrates():
    one = drawn_from(3.0)
    as_it_is = scaled_metrics(one, (1.0, 1.0))
    fitted = scaled_metrics(one, fold_temperatures([one], 2))
    for name in as_it_is.keys() - {"temperature"}:
        assert fitted[name][0] < as_it_is[name][0], name
    assert fitted["expected_calibration_error_scaled"][0] < 3


def test_one_image_keeps_the_temperature_of_the_model():
    one = drawn_from(2.0, images=1)
    assert fold_temperatures([one], 2)[one.folds[0]] == 1.0
