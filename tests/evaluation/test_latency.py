"""Models that are timed by turns, in whichever order."""

from dataclasses import replace

import pytest
import torch

from fomo_dagster.evaluation import latency
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.latency import timed_by_turns
from fomo_dagster.models.backbones import create
from tests.conftest import EXPERIMENT


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a model encodes, and then in seconds."""
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(latency.time, "monotonic", lambda: now[0])
    return now


def encoder_that_takes(seconds, clock, called):
    model = create(EXPERIMENT["backbone"]["architecture"], 0)

    def encode(kind, rows):
        clock[0] += seconds[kind]
        called.append((kind, seconds[kind], tuple(rows.shape)))
        return torch.zeros(len(rows), 4)

    model.module.encode_image = lambda rows: encode("image", rows)
    model.module.encode_text = lambda rows: encode("text", rows)
    return Encoder(model=model, batch_size=1, precision="fp32", device="cpu")


def test_every_other_pass_begins_with_the_other_model_and_each_has_one_input(clock):
    called = []
    encoders = [
        encoder_that_takes({"image": 2.0, "text": 1.0}, clock, called),
        encoder_that_takes({"image": 3.0, "text": 1.5}, clock, called),
    ]
    found = timed_by_turns(encoders)
    assert {of: passes.shape for of, passes in found.items()} == {
        "image": (latency.LEAST, 2),
        "text": (latency.LEAST, 2),
    }  # fmt: skip  (each takes more than SECONDS)
    assert (found["image"] == [2.0, 3.0]).all()
    assert (found["text"] == [1.0, 1.5]).all()
    of_images = [seconds for kind, seconds, _ in called if kind == "image"][-2 * latency.LEAST :]
    assert of_images[:4] in ([3.0, 2.0, 2.0, 3.0], [2.0, 3.0, 3.0, 2.0])
    size = encoders[0].model.image_size
    assert {shape for kind, _, shape in called if kind == "image"} == {(1, 3, size, size)}


def test_passes_end_with_the_time_or_their_number(clock):
    quick = encoder_that_takes({"image": 0.01, "text": latency.SECONDS / 100}, clock, [])
    found = timed_by_turns([quick])
    assert len(found["image"]) == latency.MOST
    assert len(found["text"]) == pytest.approx(100, abs=1)


def test_a_model_that_is_left_is_as_it_was(clock):
    encoder = encoder_that_takes({"image": 9.0, "text": 9.0}, clock, [])
    encoder.model.module.train()
    timed_by_turns([encoder, replace(encoder)])
    assert encoder.model.module.training
