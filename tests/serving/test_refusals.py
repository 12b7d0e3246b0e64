"""What a server refuses, how it says so, and that it goes on."""

import asyncio
import json
import struct
import threading
import zlib

import numpy as np
import pytest

from fomo_dagster.serving.limits import Admission, Limits, RequestError
from tests.serving.conftest import in_base64, picture

IMAGE = in_base64(picture(1))


def bomb(width, height):
    """The beginning of a PNG that would have so many pixels."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("embed/images", {"images": []}, 400, "images: List should have at least 1 item"),
        ("embed/images", {"images": ["…"]}, 400, "images.0: an image is not in base64"),
        ("embed/images", {"images": [3]}, 400, "images.0: an image is a file of a form, or a text"),
        ("embed/images", {"images": [in_base64(b"no image")]}, 400, "image 1 cannot be read"),
        ("embed/images", {"images": [in_base64(bomb(9000, 9000))]}, 400, "more than 10000: a dec"),
        ("embed/images", {"images": [in_base64(bomb(90000, 90000))]}, 400, "exceeds limit of 178"),
        ("embed/images", {"images": [in_base64(picture(1, 1, 9000))]}, 400, "1 to 10000 pixels"),
        ("embed/images", {"images": [IMAGE] * 4}, 413, "4 images are too many: at most 3"),
        ("embed/images", {"images": [IMAGE], "size": 3}, 400, "size: Extra inputs"),
        ("embed/images", {"images": [IMAGE], "release": 3}, 404, "search has no release 3"),
        ("embed/texts", {"texts": [""]}, 400, "texts.0: String should have at least 1 character"),
        ("embed/texts", {"texts": ["x" * 31]}, 413, "a text of 31 characters is too long"),
        ("embed/texts", {"texts": ["x"] * 7}, 413, "7 texts (a class in a template is one)"),
        ("embed/texts", {"texts": ["\ud800"]}, 400, "texts.0: Input should be a valid string"),
        ("embed/texts", ["a"], 400, "the body: Input should be a valid dictionary"),
        ("classify", {"image": IMAGE, "classes": ["a", "a"]}, 400, "'a' is there more than once"),
        ("classify", {"image": IMAGE}, 400, "classes: Field required"),
        (
            "classify", {"image": IMAGE, "classes": ["a"], "templates": ["photo"]}, 400,
            "'photo' needs {} exactly once",
        ),
        (
            "classify", {"image": IMAGE, "classes": [*"abcd"], "templates": ["a {}", "{}"]}, 413,
            "8 texts",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_limit(serve, path, body, status, said):
    client = serve(Limits(images=3, texts=6, characters=30, pixels=10_000))
    headers = {"content-type": "application/json"}
    answer = client.post(f"/v1/{path}", content=json.dumps(body), headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert client.post("/v1/embed/images", json={"images": [IMAGE]}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "is not JSON"),
        (
            {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400,
            "is not JSON",
        ),
        ({"content": b"x"}, 415, "the body is of no type: send application/json or, with files"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "is image/png"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400,
            "",
        ),
        ({"files": [("images", b"x")] * 5}, 400, "Too many files"),
        ({"data": {"release": ["1", "2"]}, "files": {"images": b"x"}}, 400, "release is there"),
    ],
)  # fmt: skip
def test_what_is_no_body_is_told(serve, sent, status, said):
    answer = serve(Limits(images=3)).post("/v1/embed/images", **sent)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_other_paths_and_methods_are_told_in_json(serve):
    client = serve()
    assert client.get("/v1/nothing").json() == {
        "error": "there is nothing here: see /openapi.json"
    }  # fmt: skip
    answer = client.get("/v1/classify")
    assert (answer.status_code, answer.json()) == (405, {"error": "use another method"})


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(serve):
    client = serve(Limits(body_bytes=1000))
    large = json.dumps({"texts": ["x" * 1500]}).encode()
    headers = {"content-type": "application/json"}
    announced = client.post("/v1/embed/texts", content=large, headers=headers)
    pieces = (large[start : start + 100] for start in range(0, len(large), 100))
    streamed = client.post("/v1/embed/texts", content=pieces, headers=headers)
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert "at most 1,000 B" in answer.json()["error"]


def test_a_page_of_another_site_cannot_read_what_is_on_loopback(serve):
    client = serve(hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}))
    for host, status in (
        ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("[::1]", 200),
        ("evil.example:8000", 421), ("localhost.evil.example", 421), ("", 421),
    ):  # fmt: skip
        assert client.get("/healthz", headers={"host": host}).status_code == status, host


def waiting(client, count):
    """Requests that are under way in threads, held by the engine."""
    client.served.engine.begun.clear()
    client.served.engine.held.clear()
    answers = []

    def ask():
        answers.append(client.post("/v1/embed/images", json={"images": [IMAGE]}))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    assert client.served.engine.begun.wait(10)
    return threads, answers


def test_more_than_can_wait_is_sent_away_while_health_is_told(serve):
    client = serve(Limits(requests=1))
    threads, answers = waiting(client, 1)
    refused = client.post("/v1/embed/images", json={"images": [IMAGE]})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "1 requests are under way" in refused.json()["error"]
    assert client.get("/healthz").status_code == 200
    assert "fomo_requests_under_way 1.0" in client.get("/metrics").text
    client.served.engine.held.set()
    for thread in threads:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200]
    assert client.post("/v1/embed/images", json={"images": [IMAGE]}).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(serve):
    client = serve(Limits(seconds=0.3))
    threads, answers = waiting(client, 2)
    for thread in threads:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [504, 504]
    assert "no answer within 0.3 s" in answers[0].json()["error"]
    client.served.engine.held.set()
    assert client.post("/v1/embed/images", json={"images": [IMAGE]}).status_code == 200
    assert "fomo_held_bytes 0.0" in client.get("/metrics").text


def test_what_is_held_is_bounded_for_all_requests_together():
    admission = Admission(Limits(held_bytes=100))
    with pytest.raises(RequestError, match="all requests together may take 100 B") as alone:
        admission.holding(101).__enter__()
    with admission.holding(60):
        with pytest.raises(RequestError, match="requests under way hold 60") as beside:
            admission.holding(41).__enter__()
        with admission.holding(40):
            assert admission.held_bytes == 100
    assert (alone.value.status, beside.value.status) == (413, 503)
    assert admission.held_bytes == 0


def test_features_that_are_no_numbers_are_an_error_that_says_so(serve, monkeypatch):
    client = serve()
    engine = client.served.engine
    monkeypatch.setattr(
        client.served.releases.live.batcher, "_run", lambda kind, rows: rows * np.nan
    )
    answer = client.post("/v1/embed/images", json={"images": [IMAGE]})
    assert answer.status_code == 500
    assert "features that are not finite" in answer.json()["error"]
    monkeypatch.setattr(client.served.releases.live.batcher, "_run", engine.encode)
    assert client.post("/v1/embed/images", json={"images": [IMAGE]}).status_code == 200


def test_an_error_of_the_model_is_answered_without_its_inside(serve, monkeypatch):
    client = serve()

    def fails(kind, rows):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(client.served.releases.live.batcher, "_run", fails)
    answer = client.post("/v1/embed/images", json={"images": [IMAGE]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "this failed for a reason that the server's log has"}


def test_a_client_that_goes_away_is_counted_and_no_error_of_the_server(serve, caplog):
    client = serve()
    sent, messages = [], [
        {"type": "http.request", "body": b'{"texts": [', "more_body": True},
        {"type": "http.disconnect"},
    ]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": "/v1/embed/texts", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }  # fmt: skip

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(client.served.app(scope, receive, send))
    assert sent[0]["status"] == 499
    assert not caplog.records
    assert "fomo_held_bytes 0.0" in client.get("/metrics").text


def test_admission_counts_every_request_that_ends_however_it_does():
    admission = Admission(Limits(requests=1))

    async def fails():
        with admission.request():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(fails())
    with admission.request(), pytest.raises(RequestError, match="1 requests are under way"):
        admission.request().__enter__()
