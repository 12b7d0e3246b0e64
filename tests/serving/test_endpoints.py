"""What the endpoints answer, in JSON and as forms, and which release says so."""

import io

import numpy as np
import pytest
from PIL import Image

from fomo_dagster.data.images import decoded
from fomo_dagster.data.pixels import prepared
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.serving.classifying import class_embeddings
from fomo_dagster.serving.engine import IMAGES, TEXTS
from tests.serving.conftest import HOW, FunctionEngine, in_base64, picture

PICTURES = [picture(seed, 9 + seed, 7) for seed in range(6)]


def features(number, pictures):
    rows = np.stack([prepared(decoded(data), HOW) for data in pictures])
    return FunctionEngine(number).encode(IMAGES, rows)


def text_features(number, texts):
    engine = FunctionEngine(number)
    return engine.encode(TEXTS, engine.tokens(texts).ids)


def test_images_are_embedded_in_their_order_from_json_and_from_forms(serve):
    client = serve()
    sent = client.post("/v1/embed/images", json={"images": [*map(in_base64, PICTURES)]})
    assert (sent.status_code, sent.headers["X-Release"], sent.json()["release"]) == (200, "2", 2)
    np.testing.assert_allclose(sent.json()["embeddings"], features(2, PICTURES), atol=1e-7)
    files = [("images", (f"{n}.png", data)) for n, data in enumerate(PICTURES)]
    assert client.post("/v1/embed/images", files=files).json() == sent.json()


def test_texts_are_embedded_and_those_that_were_cut_are_told(serve):
    client = serve()
    texts = ["a cat", "a very long text", "a cat", "a dog"]
    answer = client.post("/v1/embed/texts", json={"texts": texts}).json()
    np.testing.assert_allclose(answer["embeddings"], text_features(2, texts), atol=1e-7)
    assert answer["cut"] == [1]
    rows = sum(count for kind, count in client.served.engine.batches if kind == TEXTS)
    form = [("texts", (None, text)) for text in texts]
    again = client.post("/v1/embed/texts", files=form).json()
    assert again == answer
    kept = sum(count for kind, count in client.served.engine.batches if kind == TEXTS)
    assert kept == rows  # nothing was encoded twice


def test_a_large_body_is_read_as_a_small_one_is(serve, monkeypatch):
    client, asked = serve(), {"images": [*map(in_base64, PICTURES)]}
    small = client.post("/v1/embed/images", json=asked)
    monkeypatch.setattr("fomo_dagster.serving.bodies._SMALL_BYTES", 10)
    assert client.post("/v1/embed/images", json=asked).json() == small.json()
    wrong = client.post("/v1/embed/images", json={"images": ["…"]})
    assert wrong.status_code == 400


def test_another_release_answers_if_it_is_asked_for(serve):
    client = serve()
    asked = {"images": [in_base64(PICTURES[0])], "release": 1}
    answer = client.post("/v1/embed/images", json=asked)
    assert (answer.headers["X-Release"], answer.json()["release"]) == ("1", 1)
    np.testing.assert_allclose(answer.json()["embeddings"], features(1, PICTURES[:1]), atol=1e-7)
    told = client.get("/v1/releases").json()["releases"]
    assert [(one["release"], one["stage"], one["answers"]) for one in told] == [
        (1, 1, False), (2, 2, True)
    ]  # fmt: skip


@pytest.mark.parametrize("bias", [None, -10.0])
def test_probabilities_are_those_of_the_formula(loader, serve, bias):
    import torch

    loader.bias = bias
    classes, templates = ["cat", "dog", "tree"], ["a {}", "the {}!"]
    asked = {"image": in_base64(PICTURES[0]), "classes": classes, "templates": templates}
    answer = serve().post("/v1/classify", json=asked).json()
    texts = text_features(2, [t.replace("{}", name) for name in classes for t in templates])
    means = mean_embeddings(torch.from_numpy(texts), 2).numpy()
    similarities = features(2, PICTURES[:1])[0] @ means.T
    logits = torch.from_numpy(10.0 * similarities)
    expected = logits.softmax(0) if bias is None else (logits + bias).sigmoid()
    found = {one["class"]: one for one in answer["classes"]}
    assert answer["probabilities_by"] == ("softmax" if bias is None else "sigmoid")
    for place, name in enumerate(classes):
        assert found[name]["probability"] == pytest.approx(float(expected[place]), abs=1e-6)
        assert found[name]["similarity"] == pytest.approx(float(similarities[place]), abs=1e-6)
    shown = [one["probability"] for one in answer["classes"]]
    assert shown == sorted(shown, reverse=True)


def test_the_default_prompt_is_that_of_datasets_without_one(serve):
    asked = {"image": in_base64(PICTURES[0]), "classes": ["cat", "dog"]}
    client = serve()
    named = client.post("/v1/classify", json={**asked, "templates": ["A photo of a {}."]})
    assert client.post("/v1/classify", json=asked).json() == named.json()
    form = {"classes": ["cat", "dog"], "templates": "A photo of a {}."}
    files = {"image": ("one.png", PICTURES[0])}
    assert client.post("/v1/classify", data=form, files=files).json() == named.json()


def test_means_over_templates_are_those_of_the_evaluation():
    import torch

    rows = text_features(1, [f"text {n}" for n in range(12)])
    for each in (1, 2, 3):
        expected = mean_embeddings(torch.from_numpy(rows), each).numpy()
        np.testing.assert_allclose(class_embeddings(rows, each), expected, atol=1e-6)


def test_an_image_is_turned_by_its_tag_only_where_that_is_asked(serve):
    image = Image.open(io.BytesIO(PICTURES[3]))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    data = io.BytesIO()
    image.save(data, "PNG", exif=exif)
    plain, turned = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.transpose(Image.Transpose.ROTATE_270).save(turned, "PNG")
    client = serve()

    def embedded(sent, **others):
        asked = {"images": [in_base64(sent.getvalue())], **others}
        return client.post("/v1/embed/images", json=asked).json()["embeddings"]

    assert embedded(data) == embedded(plain)
    assert embedded(data, upright=True) == embedded(turned) != embedded(plain)


def test_version_and_health_say_what_answers_and_since_when(serve, home):
    client = serve()
    told = client.get("/v1/version").json()
    history = client.served.releases.history
    assert (told["name"], told["release"], told["experiment"], told["stage"]) == (
        "search", 2, "daily", 2
    )  # fmt: skip
    assert told["digest"] == history.live_candidate.checkpoint
    assert (told["engine"], told["form"], told["live_since"]) == ("onnx", "onnx", history.since)
    assert client.get("/healthz").json() == {"runs": True}
    assert client.get("/readyz").json() == {
        "release": 2, "ready": True, "live": 2, "problem": None
    }  # fmt: skip


def test_requests_and_batches_are_counted_for_prometheus(serve):
    client = serve()
    client.post("/v1/embed/images", json={"images": [*map(in_base64, PICTURES)]})
    client.post("/v1/embed/images", json={"images": []})
    client.get("/no/such/path")
    text = client.get("/metrics").text
    for line in (
        'fomo_requests_total{endpoint="/v1/embed/images",status="200"} 1.0',
        'fomo_requests_total{endpoint="/v1/embed/images",status="400"} 1.0',
        'fomo_requests_total{endpoint="other",status="404"} 1.0',
        'fomo_request_seconds_count{endpoint="/v1/embed/images"} 2.0',
        'fomo_batch_rows_sum{kind="images"} 6.0',
        "fomo_live_release 2.0",
        "fomo_rows_waiting 0.0",
        "fomo_held_bytes 0.0",
    ):
        assert line in text.splitlines()


def test_the_page_loads_nothing_from_elsewhere_and_may_not(serve):
    answer = serve().get("/")
    assert answer.status_code == 200
    assert "://" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_endpoints_are_described(serve):
    told = serve().get("/openapi.json").json()["paths"]
    body = told["/v1/classify"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert set(body["application/json"]["schema"]["properties"]) == {
        "image", "classes", "templates", "release", "upright"
    }  # fmt: skip
