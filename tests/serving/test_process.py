"""`fomo serve` as a process: it swaps under load, and ends when all it accepted is answered."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from fomo_dagster.exporting.onnx_folder import DESCRIPTION
from fomo_dagster.home import Home
from fomo_dagster.releases.files import FILES, record_files
from fomo_dagster.releases.promoting import promote, roll_back
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.store.recipes import Recipe
from tests.exporting.conftest import onnx_export
from tests.releases.conftest import PASSED, stage
from tests.serving.conftest import in_base64, picture

__all__ = ["onnx_export"]  # a fixture
pytestmark = pytest.mark.slow

FOMO = "from fomo_dagster.cli.main import main; main()"
ASKED = json.dumps({"image": in_base64(picture(1, 40, 30)), "classes": ["wren", "robin"]})


def write_files(log, number, onnx):
    """The files of a release: its probabilities are those of a scale of its own."""

    def make(folder):
        place = folder / FILES / "onnx"
        shutil.copytree(onnx, place)
        told = json.loads((place / DESCRIPTION).read_text())
        (place / DESCRIPTION).write_text(json.dumps(told | {"scale": 10.0 * number}))

    artifact = log.home.store.get_or_make(Recipe("release_files", 1, {"number": number}), make)
    record_files(log, number, (artifact.kind, artifact.digest), ("onnx",))


def put_live(log, number, onnx):
    live = log.read().live
    promote(log, stage(log.home, number), [PASSED], live, "manual", first=live is None)
    write_files(log, number, onnx)


@pytest.fixture
def log(tmp_path, onnx_export):
    """A name with one release, which is live, and its files."""
    log = ReleaseLog(Home(tmp_path / "home"), "search")
    put_live(log, 1, onnx_export.folder / "onnx")
    return log


@contextmanager
def running(home, *arguments):
    """(process, port, errors) of a server that listens."""
    command = [sys.executable, "-c", FOMO, "serve", "search", "--port", "0", *arguments]
    environment = {**os.environ, "FOMO_HOME": str(home.root)}
    environment.pop("FOMO_STORE", None)
    errors = home.root / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", line.strip())
        assert found, line + errors.read_text()
        yield process, int(found[1]), errors
    finally:
        process.kill()
        process.wait(20)


def ask(port, method="POST", path="/v1/classify", body=ASKED):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("X-Release"), answer.read()
    finally:
        connection.close()


def until(happened, what, seconds=20):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def test_under_load_releases_swap_and_nothing_is_lost(log, onnx_export):
    with running(log.home, "--threads", "1", "--timeout", "30") as (_, port, errors):
        answers, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                answers.append(ask(port))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: answers, "an answer")
        put_live(log, 2, onnx_export.folder / "onnx")
        until(lambda: answers[-1][1] == "2", "the swap")
        roll_back(log)
        until(lambda: answers[-1][1] == "1", "the swap back")
        stop.set()
        for thread in threads:
            thread.join(30)
    assert {status for status, _, _ in answers} == {200}
    bodies = {}
    for _, number, body in answers:
        told = json.loads(body)
        assert str(told["release"]) == number
        found = tuple(round(one["probability"], 5) for one in told["classes"])
        bodies.setdefault(number, set()).add(found)
    assert set(bodies) == {"1", "2"}
    assert all(len(found) == 1 for found in bodies.values())  # a release answers the same
    assert bodies["1"] != bodies["2"]
    assert "release 2 answers, after release 1" in errors.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_once_all_that_was_accepted_is_answered(log, number):
    # A batch waits for a second, so that all requests are under way when the signal comes.
    with running(log.home, "--threads", "1", "--wait-ms", "1000") as (process, port, errors):
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(port))) for _ in range(5)]
        for thread in threads:
            thread.start()
        under_way = b"fomo_requests_under_way 5.0"
        until(lambda: under_way in ask(port, "GET", "/metrics")[2], "5 requests at once")
        process.send_signal(number)
        for thread in threads:
            thread.join(30)
        assert [status for status, _, _ in answers] == [200] * 5
        assert process.wait(20) == 128 + number
    assert f"stopped by {number.name}; all that was accepted" in errors.read_text()
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_server_that_is_killed_leaves_nothing_that_keeps_the_next_one_away(log):
    with running(log.home, "--threads", "1") as (process, port, _):
        process.kill()
        process.wait(20)
    with running(log.home, "--threads", "1") as (_, port, _):
        assert ask(port)[0] == 200
