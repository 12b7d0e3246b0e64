"""Refresh a gallery while another user cleans the store, and kill one: is it ever half there?

    python benchmarks/killed_refreshes.py [--tries 50] [--seed 0]

Each try puts another stage of a small experiment live. Then one user embeds the gallery in pieces,
another cleans again and again, and one of the two is killed with SIGKILL at a random moment. At
that moment and at the end a search must find each row once; the finished gallery must have the
bytes that it has where nobody is killed, what is kept must need no computing, and the next cleaning
must leave nothing behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from two_machines import preload

from fomo_dagster.galleries import groups
from fomo_dagster.galleries.files import EMBEDDINGS
from fomo_dagster.galleries.finding import embedded_gallery
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import promote, roll_back
from fomo_dagster.releases.records import Candidate, ReleaseLog

ROWS, STAGES = 24, 3
KEY = "galleries/pets"
T = TypeVar("T")


class Place:
    """A project whose experiment is finished, with a gallery."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.conftest import Project

        self.project = Project(folder / "project")
        self.project.set_up()
        self.home = Home(folder / "home")
        os.environ.update(FOMO_HOME=str(self.home.root), FOMO_PROJECT=str(self.project.root))
        path = self.project.root / "galleries" / "pets.yaml"
        path.parent.mkdir()
        path.write_text(
            yaml.safe_dump({"dataset": "birds", "release": "shop", "refresh": {"rows": 6}})
        )
        self.log = ReleaseLog(self.home, "shop")

    def candidate(self, stage: int) -> Candidate:
        """A stage, with its weights in the store."""
        head = self.home.heads.read(f"toy/trained_{stage:03d}")
        assert head is not None
        (weights,) = head.artifacts.values()
        backbone = self.project.load().experiment.backbone
        return Candidate(
            experiment="toy", stage=stage, checkpoint=head.data_version, weights=weights,
            backbone=backbone.model_dump(mode="json", exclude_defaults=True), evaluations={},
            scores={}, lineage={},
        )  # fmt: skip

    def goes_on(self, stage: int) -> None:
        """Put a stage live: a new release, or back to one that had it."""
        history = self.log.read()
        number = history.released_as(self.candidate(stage).checkpoint)
        if number is None:
            first = history.live is None
            promote(self.log, self.candidate(stage), [], history.live, "manual", first=first)
        elif number != history.live:
            roll_back(self.log, number)

    def is_whole(self) -> bool:
        """Whether nothing is left to embed, nor to compute of what is kept."""
        context = RunContext(build_project(self.project.root), self.home)
        *_, gallery = plan(context.graph.of_gallery(KEY), context)
        entries = plan(context.graph.of("toy"), context)
        others = [e.asset for e in entries if e.compute and not e.asset.startswith(KEY)]
        assert not others, others
        return gallery.current

    def embedded(self) -> str:
        """The checksum of the embeddings as they are."""
        gallery = embedded_gallery(self.home, "pets")
        return hashlib.sha256(gallery.artifact.path(EMBEDDINGS).read_bytes()).hexdigest()

    def check_search(self) -> None:
        """Raises where a row is not found, or found twice."""
        search = GallerySearch.of(self.home, embedded_gallery(self.home, "pets"))
        found = search.by_text("a robin", ROWS)
        rows = found.unique(["split", "key"]).height
        assert (found.height, rows) == (ROWS, ROWS), found


def fomo(arguments: Sequence[str], enough: Path | None = None) -> int:
    """Begin a process that runs a command, again and again until a file is there."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    status: Any = called(arguments)
    while not status and enough is not None and not enough.exists():
        status = called(arguments)
    os._exit(1 if status else 0)


def called(arguments: Sequence[str]) -> Any:
    from fomo_dagster.cli.main import main as command

    sys.argv = ["fomo", *arguments]
    try:
        return command()
    except SystemExit as end:
        return end.code


def ended(process: int) -> int:
    """The status of a process at its end."""
    return os.waitpid(process, 0)[1]


def apart(work: Callable[[], T]) -> T:
    """What work gives or raises, in a process of its own: one whose libraries have started threads
    cannot be forked any more."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            told: dict[str, object] = {"found": work()}
        except BaseException as error:
            told = {"error": repr(error)}
        with os.fdopen(writing, "w") as file:
            json.dump(told, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = json.load(file)
    ended(process)
    if "error" in answer:
        raise AssertionError(answer["error"])
    found: T = answer["found"]
    return found


def until(true: Callable[[], bool], work: Callable[[], None], times: int = 12) -> None:
    for _ in range(times):
        if true():
            return
        work()
    raise AssertionError("it does not come to an end")


def attempt(place: Place, expected: dict[int, str], stage: int, longest: float) -> str:
    """One try; what happened. Raises `AssertionError` if anything is half there."""
    apart(lambda: place.goes_on(stage))
    enough = place.home.root / "enough"
    enough.unlink(missing_ok=True)
    refreshing = fomo(["run", KEY])
    cleaning = fomo(["store", "clean", "--yes"], enough)
    victim = random.choice([refreshing, cleaning])
    moment = random.uniform(0.3, 0.7 * longest)
    time.sleep(moment)
    is_over = os.waitpid(victim, os.WNOHANG) != (0, 0)
    if not is_over:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
    if victim == cleaning:
        assert ended(refreshing) == 0, "the refresh failed"
    enough.touch()
    if victim == refreshing:
        assert ended(cleaning) == 0, "a cleaning failed"
    apart(place.check_search)

    def embeds() -> None:
        assert ended(fomo(["run", KEY])) == 0
        apart(place.check_search)

    until(lambda: apart(place.is_whole), embeds)
    assert apart(place.embedded) == expected[stage], f"other bytes than stage {stage} alone"
    assert ended(fomo(["store", "clean", "--yes"])) == 0
    apart(place.check_search)
    assert apart(place.is_whole)
    left = [*place.home.root.glob("store/.staging/*"), *place.home.root.glob("store/.trash/*")]
    assert not left, left
    if is_over:
        return "over before a signal"
    return f"{'refresh' if victim == refreshing else 'clean-up'} killed after {moment:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    preload()
    groups.MEAN_ROWS = 4  # so that there are pieces
    folder = Path(tempfile.mkdtemp(prefix="killed_refreshes_"))
    seen: Counter[str] = Counter()
    try:
        place = Place(folder)
        assert ended(fomo(["run", "toy"])) == 0
        expected, longest = dict[int, str](), 0.0
        for stage in range(1, STAGES + 1):
            apart(partial(place.goes_on, stage))
            began = time.monotonic()
            until(lambda: apart(place.is_whole), lambda: assert_ended(fomo(["run", KEY])))
            longest = max(longest, time.monotonic() - began)
            expected[stage] = apart(place.embedded)
        for number in range(asked.tries):
            try:
                said = attempt(place, expected, number % STAGES + 1, longest)
            except AssertionError as failure:
                said = f"FAILED: {failure}"
            seen[said.split(" after")[0].split(":")[0]] += 1
            print(f"{number + 1:3d}  {said}", flush=True)
        print(dict(seen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def assert_ended(process: int) -> None:
    assert ended(process) == 0


if __name__ == "__main__":
    main()
