"""A project of a few images and a model of a few thousand weights, on the real code paths; tars;
processes that work together.

What takes long to import is imported where it is used: the process that hands tests out to workers
reads this file too, and needs none of it.
"""

from __future__ import annotations

import copy
import fcntl
import gc
import io
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup
    from fomo_dagster.experiment.loading import Loaded
    from fomo_dagster.graph.build.graph import Graph
    from fomo_dagster.home import Home

# A shell has them ignored by what it starts in the background or by nohup, which the product
# respects.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")

# Whatever is written is made sure of (fsync), by Dagster's databases too; what it is made sure of
# against, a machine that goes down, no test tries. In memory that costs nothing.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 8 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: many tests wait for processes that start. With two more, all
    of them take longer. Fast tests wait for nothing."""
    waits = "not slow" not in config.option.markexpr
    return (os.cpu_count() or 1) + waits


WHOLE_RUNS = {"finished", "nursery"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what begins with a whole run, or starts commands that make one. What is killed
    and run again takes longest, and comes early: else one process is still at it at the end. Before
    that comes what forks processes that train, which PyTorch refuses once other tests have shown it
    devices."""
    for item in items:
        if WHOLE_RUNS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items.sort(
        key=lambda item: (
            "together" not in getattr(item, "fixturenames", ()),
            item.get_closest_marker("kill") is None,
        )
    )


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once():
    """Whenever it opens its databases, Dagster reads all scripts of their migrations."""
    from alembic.script import ScriptDirectory

    read = ScriptDirectory.from_config
    known = {}

    def from_config(config):
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ScriptDirectory, "from_config", from_config)
        yield


def pytest_collection_finish() -> None:
    """Look no more at what is imported: a million objects that stay until the process ends."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
EXPERIMENT = {
    "backbone": {
        "name": "toy",
        "architecture": ARCHITECTURE,
        "pretraining": {
            "pool": {"name": "toy", "datasets": ["old"]},
            "batch_size": 8,
            "budget": {"steps": 2},
            "optimiser": {"learning_rate": 1e-3},
        },
    },
    "stream": {"name": "toy", "datasets": ["birds", "cats"], "stages": 3},
    "evaluation": {"held_out": ["old"]},
    "batch_size": 9,
    "budget": {"steps": 2},
    "optimiser": {"learning_rate": 1e-3},
    "execution": {"device": "cpu"},
}
CONCEPTS = {
    "birds": ["robin", "wren", "crow", "swan"],
    "cats": ["lion", "lynx"],
    "old": ["red", "green", "blue"],
}


def draw(path: Path, seed: int) -> None:
    """A small picture, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (seed * 37 % 256, seed * 91 % 256, seed * 151 % 256)
    image = Image.new("RGB", (18, 18), colour)
    image.paste((255 - colour[0], colour[1], 0), (seed % 9, 3, seed % 9 + 6, 12))
    image.save(path)


class Project:
    """A project folder of its own, with experiments over three folders of pictures."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def home(self) -> Home:
        from fomo_dagster.home import Home

        return Home(self.root / ".fomo")

    def set_up(self) -> None:
        """Draw the pictures and write the files."""
        root = self.root
        (root / "experiments").mkdir(parents=True)
        (root / "datasets").mkdir()
        declared = {}
        seed = 0
        for name, concepts in CONCEPTS.items():
            declared[name] = {
                "source": {"type": "folder", "path": f"../images/{name}"},
                "prompt": "a photo of a {}",
            }
            for concept in concepts:
                for split, count in (("train", 4), ("test", 2)):
                    for number in range(count):
                        seed += 1
                        draw(root / "images" / name / split / concept / f"{number}.png", seed)
        (root / "datasets" / "toy.yaml").write_text(yaml.safe_dump(declared))
        self.write("toy")

    def write(self, name: str, **changes: object) -> None:
        """Write an experiment: the toy's values with some replaced."""
        path = self.root / "experiments" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**EXPERIMENT, **changes}))

    def add_image(self, dataset: str, split: str, concept: str, seed: int) -> Path:
        path = self.root / "images" / dataset / split / concept / f"new{seed}.png"
        draw(path, seed)
        return path

    def load(self, name: str = "toy", *overrides: str) -> Loaded:
        from fomo_dagster.experiment.loading import load_experiment

        return load_experiment(name, self.root, overrides)

    def graph(self, name: str = "toy", *overrides: str) -> Graph:
        from fomo_dagster.graph.build.builder import build_graph

        return build_graph([self.load(name, *overrides)])

    def artifacts(self) -> set[str]:
        """`kind/digest` of everything in the store."""
        folders = (p.parent for p in self.home.root.glob("store/[!.]*/*/manifest.json"))
        return {f"{folder.parent.name}/{folder.name}" for folder in folders}


def enter(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make the project the one that commands and definitions see."""
    monkeypatch.setenv("FOMO_PROJECT", str(project.root))
    monkeypatch.setenv("FOMO_HOME", str(project.home.root))
    monkeypatch.setenv("DAGSTER_HOME", str(project.home.dagster))
    for variable in ("FOMO_STORE", "FOMO_TRACKERS"):
        monkeypatch.delenv(variable, raising=False)
    return project


@pytest.fixture
def plots(monkeypatch):
    """Plots of what a run makes are blank, which spares a third of what a toy's takes. `finished`
    is made with real ones; where they matter, this fixture is replaced by one that does nothing."""
    blank = picture(0, "PNG")
    for plot in (
        "graph.work.stage.training_plot", "plots.scores.heat_map", "plots.scores.paths_plot",
        "plots.stream.stream_plot",
    ):  # fmt: skip
        monkeypatch.setattr(f"fomo_dagster.{plot}", lambda *_, **__: blank)


@pytest.fixture
def uncounted(monkeypatch):
    """The operations of a stage are not counted, which takes half the time of a toy's. Those of
    every method are counted in tests/training/test_compute.py."""
    monkeypatch.setattr("fomo_dagster.graph.work.stage.training_flops", lambda *_: {})


@pytest.fixture
def project(tmp_path, monkeypatch, plots):
    """A project of which nothing was made yet."""
    made = Project(tmp_path / "project")
    made.set_up()
    return enter(made, monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project whose experiment `toy` was run; never changed, only copied. The first process that
    asks for it makes it for all."""
    from fomo_dagster.cli.running import run_experiment

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, is_made = Project(folder / "finished" / "project"), folder / "finished.done"
        if not is_made.exists():
            shutil.rmtree(made.root, ignore_errors=True)
            made.set_up()
            with pytest.MonkeyPatch.context() as monkeypatch:
                enter(made, monkeypatch)
                run_experiment("toy", [])
            is_made.touch()
    return made


@pytest.fixture
def finished_project(finished, tmp_path, monkeypatch, plots):
    """A copy of a project whose experiment `toy` was run."""
    shutil.copytree(finished.root, tmp_path / "project")
    return enter(Project(tmp_path / "project"), monkeypatch)


@pytest.fixture
def small_backbone() -> dict[str, Any]:
    """Another backbone than the toy's, of its own size, to learn from or to choose by."""
    return {
        "name": "small",
        "architecture": {
            "embed_dim": 8,
            "vision_cfg": {
                "image_size": 24, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8
            },
            "text_cfg": {
                "context_length": 9, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1
            },
        },
        "pretraining": copy.deepcopy(EXPERIMENT["backbone"]["pretraining"]),
    }  # fmt: skip


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A small image of one colour, that of its number."""
    data = io.BytesIO()
    Image.new("RGB", (12, 10), (number * 3 % 256, number // 85, 128)).save(data, kind)
    return data.getvalue()


def members(number: int) -> dict[str, bytes]:
    """What img2dataset writes of one sample."""
    key = f"{number:09d}"
    about = {"caption": f"caption {number}", "key": key, "status": "success", "width": 12}
    return {
        f"{key}.jpg": picture(number),
        f"{key}.txt": f"caption {number}".encode(),
        f"{key}.json": json.dumps(about).encode(),
    }


def write_tar(path: Path, content: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


class Tars:
    """Writes tars; tests take it as the fixture `tars`."""

    picture = staticmethod(picture)
    members = staticmethod(members)
    write = staticmethod(write_tar)

    @staticmethod
    def content(shard: int, samples: int) -> dict[str, bytes]:
        """The members of a shard; of each 10 numbers, the third failed to download."""
        content: dict[str, bytes] = {}
        for place in range(samples):
            content |= members(10_000 * shard + place + (place + 7) // 9)
        return content

    @classmethod
    def shard(cls, folder: Path, shard: int, samples: int) -> Path:
        return cls.write(folder / f"{shard:05d}.tar", cls.content(shard, samples))


@pytest.fixture
def tars() -> type[Tars]:
    return Tars


class Together:
    """Forks processes that work as one group; each one's result is its return value, by rank."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times = itertools.count()

    def __call__(self, count: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
        """`work(group)` in each of `count` processes. Raises the first error of any."""
        from fomo_dagster.distributed.process_group import ProcessGroup

        folder = self._folder / f"together_{next(self._times)}"
        folder.mkdir()
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=self._one, args=(ProcessGroup(rank, count), folder, work))
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            process.kill()
        results = [pickle.loads((folder / f"{rank}").read_bytes()) for rank in range(count)]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    @staticmethod
    def _one(group: ProcessGroup, folder: Path, work: Callable[[ProcessGroup], Any]) -> None:
        import torch.distributed as dist

        store = dist.FileStore(str(folder / "store"), group.world_size)
        dist.init_process_group("gloo", store=store, rank=group.rank, world_size=group.world_size)
        try:
            result = work(group)
        except BaseException as error:
            result = error
        (folder / f"{group.rank}").write_bytes(pickle.dumps(result))
        os._exit(0)


@pytest.fixture
def together(tmp_path) -> Together:
    return Together(tmp_path)
