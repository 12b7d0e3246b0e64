"""A run that is killed again and again ends with what a run that never was ends with."""

import json
import random
import re
import shutil
import time

import polars as pl
import pytest

pytestmark = pytest.mark.kill

WALL_CLOCK = ["samples_per_second"]
# What a head says of clocks, or of tables that have what clocks say.
CLOCKS = ("seconds", "recorded_at", "checked_at", "cost", "status", "tables", "checksum")
EAGER = ("--set", "execution.resume_seconds=1e-9")
FOR_GOOD = 600.0


def left(project, pattern):
    return list(project.home.root.glob(pattern))


def asset(doing):
    """The asset whose table or head is about to be written."""
    return re.search(r"/(toy/\w+_\d{3})", doing.replace("/.", "/"))[1]


def in_the_middle_of(kind):
    """Nothing that is half made can be found, nor anything made of it."""
    return lambda project, doing: left(project, f"store/.staging/{kind}-*")


def training(project, doing):
    return left(project, "resume/*/resume.pt") and left(project, "store/.staging/*-*")


def before_its_head_moved(project, doing):
    assert left(project, f"store/{'trained' if 'trained' in doing else 'evaluation'}/*")
    return project.home.heads.read(asset(doing)) is None


# What is about to be done when the kill comes: part of a path, the number of the operation on such
# paths, and how the state left behind shows that the kill hit there; without that, the kill comes
# a little later, wherever that is. In the order of a run.
MOMENTS = [
    ("store/.staging/shards-", (2, 12), None),
    ("store/.staging/shards-", (6, 9), in_the_middle_of("shards")),
    ("resume/", (9, 19), None),  # of θ₀
    ("store/.staging/evaluation-", (2, 4), in_the_middle_of("evaluation")),
    ("tables/evaluations/toy", (2, 4), None),
    ("resume/", (9, 19), training),
    ("tables/training_steps/toy", (2, 4), before_its_head_moved),
    ("heads/toy/.", (1, 2), before_its_head_moved),
    ("store/.staging/trained-", (2, 4), None),
    ("store/.staging/scores-", (2, 6), in_the_middle_of("scores")),
]


def state(project):
    """Everything that a run leaves, without what a clock has a say in."""
    root = project.home.root
    artifacts = {}
    for path in root.glob("store/[!.]*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        artifacts[str(path.parent.relative_to(root))] = manifest
    heads = {
        key: {
            name: value
            for name, value in json.loads((root / "heads" / f"{key}.json").read_text()).items()
            if name not in CLOCKS
        }
        for key in project.home.heads.below("")
    }
    tables = {
        str(path.relative_to(root)): pl.read_parquet(path).drop(WALL_CLOCK, strict=False)
        for path in root.glob("tables/**/*.parquet")
    }
    return artifacts, heads, tables


def assert_the_same(project, expected):
    artifacts, heads, tables = state(project)
    assert artifacts == expected[0]
    assert heads == expected[1]
    assert tables.keys() == expected[2].keys()
    assert all(tables[name].equals(expected[2][name]) for name in tables)
    assert not left(project, "store/.staging/*")
    assert not left(project, "resume/*")
    assert not left(project, "heads/**/.*")
    assert not left(project, "tables/**/.*")


@pytest.fixture
def longer(project):
    project.write("toy", budget={"steps": 8})
    return project


@pytest.fixture
def never_killed(longer, nursery):
    """The state of a run that was left in peace."""
    status, output = nursery.run(longer, "run", "toy")
    assert status == 0, output
    found = state(longer)
    shutil.rmtree(longer.home.root)
    return found


def test_a_run_killed_at_ten_moments_ends_as_one_never_killed(longer, never_killed, nursery):
    chance = random.Random(7)
    for mark, counts, hit in MOMENTS:
        watch = (mark, chance.randint(*counts), FOR_GOOD if hit else 0.0)
        fomo = nursery.start(longer, "run", "toy", *EAGER, watch=watch)
        doing = fomo.sign()
        assert doing, f"it ended before {watch}: {fomo.output}"
        if hit is None:
            time.sleep(chance.uniform(0, 0.02))
        fomo.kill()
        assert hit is None or hit(longer, doing), f"killed before: {doing}"
    status, output = nursery.run(longer, "run", "toy")
    assert status == 0, output
    assert_the_same(longer, never_killed)
