"""Releases as they come from records and the store."""

import shutil

import numpy as np
import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.releases.files import FILES, record_files
from fomo_dagster.releases.promoting import promote
from fomo_dagster.releases.records import Candidate, ReleaseLog
from fomo_dagster.serving.engine import IMAGES
from fomo_dagster.serving.loaded import Batching
from fomo_dagster.serving.loading import Loader
from fomo_dagster.store.recipes import Recipe
from tests.releases.conftest import PASSED
from tests.serving.conftest import release


def loader_of(home, **changes):
    return Loader(
        home=home, name="search", batching=Batching(2, 0), on_batch=lambda *_: None, **changes
    )


def record(home, number, forms):
    """Files of a release that are no model."""

    def make(folder):
        (folder / FILES / forms[0]).mkdir(parents=True)
        (folder / FILES / forms[0] / "model.json").write_text("{}")

    artifact = home.store.get_or_make(Recipe("release_files", 1, {"number": number}), make)
    record_files(ReleaseLog(home, "search"), number, (artifact.kind, artifact.digest), forms)
    return artifact


def test_a_form_that_a_release_lacks_is_refused_with_those_that_it_has(home):
    record(home, 2, ("onnx_int8", "card"))
    loader, history = loader_of(home), ReleaseLog(home, "search").read()
    assert not loader.is_there(2, history)
    assert loader_of(home, form="onnx_int8").is_there(2, history)
    with pytest.raises(InputError, match=r"no form onnx, but onnx_int8, card: add it to `release"):
        loader.load(2, history)
    assert loader.load(1, history) is None  # no files yet


def test_releases_that_are_there_are_told_without_reading_the_log_again(home, monkeypatch):
    artifact = record(home, 2, ("onnx",))
    loader, history = loader_of(home), ReleaseLog(home, "search").read()
    monkeypatch.setattr(ReleaseLog, "read", None)
    assert [loader.is_there(number, history) for number in (1, 2)] == [False, True]
    shutil.rmtree(artifact.folder)
    assert not loader.is_there(2, history)


def test_weights_that_were_cleaned_are_named_with_the_command_that_restores(home):
    loader, history = loader_of(home, engine="torch"), ReleaseLog(home, "search").read()
    candidate = history.live_candidate
    shutil.rmtree(home.store.folder(*candidate.weights))
    assert not loader.is_there(2, history)
    with pytest.raises(InputError, match=r"`fomo run daily --restore .*` makes them again"):
        loader.load(2, history)


def test_a_look_finds_newer_records_alone(home):
    log = ReleaseLog(home, "search")
    history = log.read()
    assert log.read_after(history) is history
    release(home, 3)
    assert log.read_after(history) == log.read() != history


@pytest.mark.slow
def test_the_weights_of_a_release_are_served_by_pytorch(finished_project):
    import torch

    from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights

    home, backbone = finished_project.home, finished_project.load("toy").experiment.backbone
    (weights,) = home.heads.read("toy/trained_003").artifacts.values()
    candidate = Candidate(
        experiment="toy", stage=3, checkpoint=weights[1], weights=weights,
        backbone=backbone.model_dump(mode="json", exclude_defaults=True), evaluations={},
        scores={}, lineage={},
    )  # fmt: skip
    log = ReleaseLog(home, "search")
    promote(log, candidate, [PASSED], None, "manual", first=True)
    loader = loader_of(home, engine="torch")
    assert loader.is_there(1, log.read())
    served = loader.load(1, log.read())
    model = load_weights(backbone, home.store.open(*weights).path(WEIGHTS))
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = model.module.eval().encode_image(torch.from_numpy(images), normalize=True)
    found = served.batcher.submit(IMAGES, images).result(timeout=20)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    served.close()
