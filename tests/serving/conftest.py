"""Servers over engines that are plain functions, and releases that nobody trained."""

import base64
import io
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fomo_dagster.data.pixels import Preparation
from fomo_dagster.errors import InputError
from fomo_dagster.exporting.onnx_folder import Description
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import promote
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.serving.app import create_app
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.engine import IMAGES, Tokens
from fomo_dagster.serving.limits import Limits
from fomo_dagster.serving.loaded import Batching, loaded
from fomo_dagster.serving.releases import ServedReleases
from tests.releases.conftest import PASSED, stage

SIZE, LENGTH, WIDTH = 4, 6, 8
HOW = Preparation(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class FunctionEngine:
    """Features are a fixed projection of pixels or letters; of each release another one.

    held: while it is not set, whatever is encoded after the warming waits.
    """

    def __init__(self, number, bias=None):
        self.description = Description(HOW, LENGTH, None, 10.0, bias)
        generator = np.random.default_rng(number)
        self._weights = {
            True: generator.normal(size=(3 * SIZE * SIZE, WIDTH)).astype(np.float32),
            False: generator.normal(size=(LENGTH, WIDTH)).astype(np.float32),
        }
        self.held, self.begun = threading.Event(), threading.Event()
        self.held.set()
        self.batches = []

    def tokens(self, texts):
        ids = [[ord(letter) for letter in text[:LENGTH].ljust(LENGTH)] for text in texts]
        cut = tuple(place for place, text in enumerate(texts) if len(text) > LENGTH)
        return Tokens(np.array(ids, np.int64), cut)

    def encode(self, kind, rows):
        self.begun.set()
        assert self.held.wait(20)
        self.batches.append((kind, len(rows)))
        flat = rows.reshape(len(rows), -1).astype(np.float32)
        found = flat @ self._weights[kind == IMAGES]
        found[:, 0] += 1e-3  # black images too have a direction
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@dataclass
class FunctionLoader:
    """Loads such engines. broken: numbers that cannot be loaded; missing: without files yet."""

    home: Home
    name: str = "search"
    engine: str = "onnx"
    form: str = "onnx"
    bias: float | None = None
    batching: Batching = field(default_factory=lambda: Batching(4, 0.001))
    broken: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)
    engines: dict[int, FunctionEngine] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    @property
    def log(self):
        return ReleaseLog(self.home, self.name)

    def is_there(self, number, history):
        return number not in self.missing

    def load(self, number, history):
        candidate = history.release(number).candidate
        if number in self.broken:
            raise InputError(f"onnxruntime cannot load release {number}")
        if number in self.missing:
            return None
        self.engines[number] = FunctionEngine(number, self.bias)
        return loaded(
            number, candidate, self.engines[number], self.batching, self.counters.on_batch
        )


def release(home, number):
    """Put another stage live."""
    log = ReleaseLog(home, "search")
    live = log.read().live
    promote(log, stage(home, number), [PASSED], live, "manual", first=live is None)


@pytest.fixture
def home(tmp_path):
    """A home with two releases, of which the second is live."""
    home = Home(tmp_path / "home")
    release(home, 1)
    release(home, 2)
    return home


@pytest.fixture
def loader(home):
    return FunctionLoader(home)


class Served:
    """A server within this process."""

    def __init__(self, loader, limits=None, hosts=None, beside=None):
        self.loader = loader
        self.limits = limits or Limits()
        self.releases = ServedReleases(loader, loader.counters, beside)
        self.app = create_app(
            loader, self.releases, loader.counters, limits=self.limits, hosts=hosts
        )

    @property
    def engine(self):
        return self.loader.engines[self.releases.live.number]


@pytest.fixture
def serve(loader):
    """Starts servers, `serve(limits)`; each is its client with the attribute `served`."""
    opened = []

    def start(limits=None, **others):
        served = Served(loader, limits, **others)
        client = TestClient(served.app, base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        client.served = served
        opened.append(client)
        return client

    yield start
    for client in opened:
        for engine in loader.engines.values():
            engine.held.set()
        client.__exit__(None, None, None)


def picture(seed, width=9, height=7, kind="PNG"):
    """The bytes of a small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def in_base64(data):
    return base64.b64encode(data).decode()
