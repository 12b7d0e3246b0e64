"""What a model thinks of labelled samples."""

import numpy as np
import polars as pl
import pytest
import torch

from fomo_dagster.errors import InputError
from fomo_dagster.evaluation import label_noise as module
from fomo_dagster.evaluation.inspection import drawn, fit_of_captions, zero_shot_of
from fomo_dagster.evaluation.label_noise import check_can_look, label_noise


def unit(rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_the_caption_that_fits_least_counts():
    images = unit([[1, 0], [1, 1]])
    texts = {"east": [1.0, 0.0], "north": [0.0, 1.0], "west": [-1.0, 0.0]}
    captions = pl.Series([["east", "north"], ["west"]])
    found = fit_of_captions(captions, images, lambda names: unit([texts[n] for n in names]))
    assert found == pytest.approx([0.0, -(0.5**0.5)])


def labelled(noise, classes=4, each=60, dimensions=16):
    """Samples around the centre of their class, of which a share has another's label."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), each)
    centres = 2 * generator.normal(size=(classes, dimensions))
    features = centres[truth] + generator.normal(size=(len(truth), dimensions))
    wrong = generator.random(len(truth)) < noise
    given = np.where(wrong, (truth + generator.integers(1, classes, len(truth))) % classes, truth)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    names = [f"class {place}" for place in given]
    samples = pl.DataFrame({"row": range(7, 7 + len(names)), "concept": names})
    return samples, features.astype(np.float32), wrong, truth


def test_labels_that_were_changed_are_found_and_the_right_ones_suggested():
    samples, features, wrong, truth = labelled(0.1)
    told = label_noise(samples, features)
    assert told["row"].to_list() == samples["row"].to_list()
    found = told["doubtful"].to_numpy()
    assert (found & wrong).sum() >= 0.9 * wrong.sum()
    assert (found & ~wrong).sum() <= 0.03 * (~wrong).sum()
    names = np.array([f"class {place}" for place in truth])
    assert (told["suggested"].to_numpy() == names)[wrong].mean() > 0.9
    assert told["label_quality"].to_numpy()[wrong].mean() < 0.1


def test_concepts_with_few_samples_are_not_looked_at():
    samples, features, _, _ = labelled(0)
    few = samples.with_columns(
        concept=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("rare")).otherwise("concept")
    )
    told = label_noise(few, features)
    assert told["row"].to_list() == samples["row"].to_list()[3:]
    assert not told["doubtful"].any()
    assert label_noise(samples.head(60), features[:60]).is_empty()  # of one concept alone


def test_what_a_model_would_call_samples():
    classes = ["cat", "dog", "eel"]
    samples = pl.DataFrame({"row": [2, 0], "concept": ["dog", "cat"]})
    features = unit([[1, 0, 0], [0, 0, 1], [1, 0.5, 0]])
    told = zero_shot_of(samples, features, classes, torch.eye(3), 10.0)
    assert told["row"].to_list() == [2, 0]
    assert told["predicted"].to_list() == ["cat", "cat"]
    expected = (10 * features[[2, 0]]).softmax(dim=1)
    likely = [float(expected[0, 1]), float(expected[1, 0])]
    assert told["confidence"].to_list() == pytest.approx(likely)


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
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"fomo-dagster\[cleanlab\]"):
        check_can_look("the inspection of 'toy'")
