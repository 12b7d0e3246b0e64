"""How much a server holds, beside the same model behind a plain route; and a swap under load.

    python benchmarks/serving.py [--model small|ViT-B-32] [--seconds 15] [--keep FOLDER]
    python benchmarks/serving.py --home HOME --name NAME

Two models of random weights are exported as two releases of a home of their own, in FOLDER, where a
later run finds them; or what is live in another home is measured, and what was live before. `fomo
serve` and then a plain FastAPI app, each a process of its own, get
requests from 64 asynchronous clients on this machine, each with one JPEG to embed; the app decodes
and runs one image at a time in FastAPI's threads, by the same code. At last `fomo serve` answers
while releases go live and back, and every answer is held against those of the two releases.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fomo_dagster.home import Home
from fomo_dagster.releases.files import FILES, record_files, released_files
from fomo_dagster.releases.promoting import promote, roll_back
from fomo_dagster.releases.records import Candidate, ReleaseLog
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.store.recipes import Recipe

NAME = "search"
SMALL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 192, "head_width": 48, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
FOMO = "from fomo_dagster.cli.main import main; main()"
PASSED = Verdict("knowledge", True, "not below what is live", "fine")
PLAIN = """
import sys
from pathlib import Path
import numpy as np, uvicorn
from fastapi import FastAPI, Request
from fomo_dagster.data.images import decoded
from fomo_dagster.data.pixels import prepared
from fomo_dagster.serving.bodies import EmbedImages
from fomo_dagster.serving.onnx_engine import OnnxEngine

engine, app = OnnxEngine(Path(sys.argv[1])), FastAPI()

@app.post("/v1/embed/images")
def embed(asked: EmbedImages):
    rows = [prepared(decoded(one), engine.description.images) for one in asked.images]
    return {"embeddings": engine.encode("images", np.stack(rows)).tolist()}

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)

Server(uvicorn.Config(app, port=0, log_config=None, access_log=False)).run()
"""


def prepare(home: Home, model: str) -> None:
    """Two releases, with their files."""
    import torch

    from fomo_dagster.exporting.onnx_files import describe, export_towers
    from fomo_dagster.exporting.samples import Samples
    from fomo_dagster.models import backbones

    log = ReleaseLog(home, NAME)
    for number in (1, 2):
        made = backbones.create(SMALL if model == "small" else model, seed=number)
        texts = ["a photo of a cat", "a dog"]
        images = torch.rand(8, 3, made.image_size, made.image_size)
        samples = Samples(images, texts, made.tokenize(texts))

        def write(folder: Path, made: Any = made, samples: Any = samples) -> None:
            place = folder / FILES / "onnx"
            place.mkdir(parents=True)
            export_towers(made, samples, place)
            describe(made, samples.texts, place)

        store = home.store
        weights = store.get_or_make(
            Recipe("trained", 1, {"number": number}), lambda folder: (folder / "weights").touch()
        )
        candidate = Candidate(
            experiment="benchmark", stage=number, checkpoint=weights.digest,
            weights=(weights.kind, weights.digest), backbone={}, evaluations={}, scores={},
            lineage={},
        )  # fmt: skip
        live = log.read().live
        promote(log, candidate, [PASSED], live, "manual", first=live is None)
        files = store.get_or_make(Recipe("release_files", 1, {"number": number}), write)
        record_files(log, number, (files.kind, files.digest), ("onnx",))


@contextlib.contextmanager
def serving(*command: str, home: Home) -> Iterator[int]:
    """The port of a process that listens."""
    environment = {**os.environ, "FOMO_HOME": str(home.root)}
    process = subprocess.Popen(
        [sys.executable, "-c", *command], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None, "the server did not start"
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(30)


def requests(count: int = 16) -> list[bytes]:
    """Requests with different JPEGs of 320 x 240 pixels."""
    made = []
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(data, "JPEG")
        body = json.dumps({"images": [base64.b64encode(data.getvalue()).decode()]}).encode()
        head = (
            "POST /v1/embed/images HTTP/1.1\r\nhost: localhost\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


@dataclass
class Found:
    """seconds: of each answer. statuses: how many of each. answers: (which request, its body)."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    lost: int = 0


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[Any, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()


async def client(port: int, place: int, sent: list[bytes], end: float, found: Found) -> None:
    """Asks one request after the other until the end."""
    async with connection(port) as (reader, writer):
        while time.monotonic() < end:
            started, which = time.monotonic(), place % len(sent)
            try:
                writer.write(sent[which])
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert length is not None
                body = await reader.readexactly(int(length[1]))
            except (OSError, asyncio.IncompleteReadError):
                found.lost += 1
                return
            found.seconds.append(time.monotonic() - started)
            found.statuses[head.split(None, 2)[1].decode()] += 1
            found.answers.append((which, body))
            place += 1


async def load(port: int, clients: int, seconds: float, sent: list[bytes]) -> Found:
    """All clients at once."""
    found, end = Found(), time.monotonic() + seconds
    await asyncio.gather(*(client(port, place, sent, end, found) for place in range(clients)))
    return found


def said(what: str, found: Found, seconds: float) -> str:
    """Requests a second, and how long they took."""
    p50, p99 = 1000 * np.percentile(found.seconds, [50, 99])
    return (
        f"{what}: {len(found.seconds) / seconds:.0f} requests/s, p50 {p50:.1f} ms, p99 {p99:.1f} "
        f"ms, statuses {dict(found.statuses)}, lost {found.lost}"
    )


def measure(port: int, clients: int, seconds: float, what: str) -> None:
    sent = requests()
    asyncio.run(load(port, clients, 2, sent))  # warm
    print(said(what, asyncio.run(load(port, clients, seconds, sent)), seconds), flush=True)


async def swaps(log: ReleaseLog, port: int, clients: int, seconds: float) -> tuple[Found, int]:
    """Rollbacks between both releases, every third of the time."""
    sent = requests()
    under_way = asyncio.create_task(load(port, clients, seconds, sent))
    for _ in range(2):
        await asyncio.sleep(seconds / 3)
        await asyncio.to_thread(roll_back, log)
    return await under_way, 2


def swap_under_load(log: ReleaseLog, port: int, clients: int, seconds: float) -> None:
    sent, history = requests(), log.read()
    assert history.live is not None
    expected: dict[tuple[int, int], Any] = {}
    for number in (history.live, history.aliases["previous"]):
        with_number = [
            one.replace(b'{"images"', b'{"release": %d, "images"' % number) for one in sent
        ]
        for which, one in enumerate(with_number):
            head, _, body = one.partition(b"\r\n\r\n")
            head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head)
            found = asyncio.run(once(port, head + b"\r\n\r\n" + body))
            expected[number, which] = np.array(found["embeddings"])
    found, count = asyncio.run(swaps(log, port, clients, seconds))
    by_release: Counter[int] = Counter()
    wrong, apart = 0, 0.0
    for which, body in found.answers:
        told = json.loads(body)
        number = told.get("release")
        if number is None:
            wrong += 1
            continue
        by_release[number] += 1
        difference = float(np.abs(np.array(told["embeddings"]) - expected[number, which]).max())
        apart, wrong = max(apart, difference), wrong + (difference > 1e-4)
    print(said(f"{count} swaps under load", found, seconds))
    print(
        f"  answers by release {dict(sorted(by_release.items()))}, {wrong} that are of neither, "
        f"largest difference from its release's own {apart:.1e}"
    )


async def once(port: int, request: bytes) -> dict[str, Any]:
    """The answer to a request."""
    async with connection(port) as (reader, writer):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length is not None
        answer: dict[str, Any] = json.loads(await reader.readexactly(int(length[1])))
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--home", type=Path, help="with two releases of NAME and their files")
    parser.add_argument("--name", default=NAME)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Home(given.home or (given.keep or Path(temporary)).resolve() / given.model)
        if given.home is None and released_files(home, NAME) is None:
            prepare(home, given.model)
        live = released_files(home, given.name)
        assert live is not None, f"nothing is live as {given.name}, or its files are not there"
        serve = (FOMO, "serve", given.name, "--port", "0", "--timeout", "60")
        what = f"{given.home}, {given.name}" if given.home else given.model
        print(f"{what}: {given.clients} clients, {given.seconds:g} s each")
        with serving(*serve, home=home) as port:
            measure(port, given.clients, given.seconds, "fomo serve")
        with serving(PLAIN, str(live.folder / "onnx"), home=home) as port:
            measure(port, given.clients, given.seconds, "a plain route")
        with serving(*serve, home=home) as port:
            swap_under_load(ReleaseLog(home, given.name), port, given.clients, given.seconds)


if __name__ == "__main__":
    main()
