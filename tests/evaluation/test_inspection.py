"""What a model thinks of labelled samples."""

import numpy as np
import polars as pl
import pytest
import torch

from fomo_dagster.errors import InputError
from fomo_dagster.evaluation import label_noise
from fomo_dagster.evaluation.inspection import drawn, fit_of_captions, labels_of
from fomo_dagster.evaluation.label_noise import check_can_look, doubtful_labels


def unit(rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_the_caption_that_fits_least_counts():
    images = unit([[1, 0], [1, 1]])
    texts = {"east": [1.0, 0.0], "north": [0.0, 1.0], "west": [-1.0, 0.0]}
    captions = pl.Series([["east", "north"], ["west"]])
    found = fit_of_captions(captions, images, lambda names: unit([texts[n] for n in names]))
    assert found == pytest.approx([0.0, -(0.5**0.5)])


def labelled(noise, seed=0, classes=4, each=60):
    """Samples of well separated classes, of which a share has another's label."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    logits = generator.normal(0, 1, (len(truth), classes))
    logits[np.arange(len(truth)), truth] += 5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = generator.random(len(truth)) < noise
    given = np.where(wrong, (truth + generator.integers(1, classes, len(truth))) % classes, truth)
    return given, probabilities.astype(np.float32), wrong


def test_labels_that_were_changed_are_found():
    given, probabilities, wrong = labelled(0.1)
    found = doubtful_labels(given, probabilities)
    assert (found & wrong).sum() >= 0.9 * wrong.sum()
    assert (found & ~wrong).sum() <= 0.03 * (~wrong).sum()


def test_classes_without_samples_are_no_better_ones():
    given, probabilities, _ = labelled(0.1)
    spread = np.zeros((len(given), 9), np.float32)
    spread[:, [1, 3, 5, 8]] = probabilities
    places = np.array([1, 3, 5, 8])[given]
    expected = doubtful_labels(given, probabilities)
    assert (doubtful_labels(places, spread) == expected).all()
    assert not doubtful_labels(np.zeros(5, np.int64), probabilities[:5]).any()


def test_what_is_told_of_labels():
    classes = ["cat", "dog", "eel"]
    samples = pl.DataFrame({"row": [2, 0], "concept": ["dog", "cat"]})
    features = unit([[1, 0, 0], [0, 0, 1], [1, 0.5, 0]])
    told = labels_of(samples, features, classes, torch.eye(3), 10.0, look_for_noise=False)
    assert told["row"].to_list() == [2, 0]
    assert told["suggested"].to_list() == ["cat", "cat"]
    expected = (10 * features[[2, 0]]).softmax(dim=1)
    assert told["confidence"].to_list() == pytest.approx(
        [float(expected[0, 1]), float(expected[1, 0])]
    )
    assert told["doubtful"].null_count() == 2


def test_more_samples_leave_the_draw_as_it_was():
    samples = pl.DataFrame({"dataset": ["a"] * 50, "key": [str(n) for n in range(50)]})
    few = drawn(samples.head(40), 10)
    assert few.height == 10
    again = drawn(samples, 10)
    stayed = [key for key in again["key"] if int(key) < 40]
    assert 0 < len(stayed) < 10
    assert stayed == few["key"].to_list()[: len(stayed)]
    assert drawn(samples.reverse(), 10).equals(again)


def test_without_cleanlab_it_is_said_which_extra_has_it(monkeypatch):
    monkeypatch.setattr(label_noise.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"fomo-dagster\[cleanlab\]"):
        check_can_look("the inspection of 'toy'")
