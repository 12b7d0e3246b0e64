"""What a release learnt that is no longer in the stream of the stage which starts from it, held
against test images. The toy's pictures are all alike to a hash."""

import shutil

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli import planning
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.tables.views import query
from tests.conftest import Project, enter

pytestmark = pytest.mark.slow

PASSES = {"retention": {"no_worse_than": "live", "margin": 100}}
DATA = {"data": {"leakage": "refuse"}}
NEXT = {"method": {"start_from": "live"}, "near_duplicates": {"distance": 16}}
ADDRESS = {"name": "pets", "datasets": ["cats"], "order": "dataset_incremental"}
LEARNT = "of those that the release learnt which it starts from"
ASKED = "nobody looked for test images among what the release that it starts from learnt of "


def fomo(*arguments):
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def release(**gates):
    return {"name": "shop", "gates": PASSES | gates}


@pytest.fixture
def live(finished, tmp_path, monkeypatch):
    """A project whose stage 1 is live, which brought birds."""
    monkeypatch.setattr(planning, "_said", set())
    shutil.copytree(finished.root, tmp_path / "project")
    project = enter(Project(tmp_path / "project"), monkeypatch)
    project.write("toy", release=release())
    fomo("run", "toy")
    fomo("promote", "toy", "--stage", "1", "--first")
    return project


def told(project, experiment, stage):
    rows = query(project.home.root, "SELECT experiment, stage, passed, said FROM gates WHERE gate "
                 "= 'data: leakage'")  # fmt: skip
    ((*_, passed, said),) = rows.filter(experiment=experiment, stage=stage).rows()
    assert not passed
    return said


def learnt(project):
    """Of which dataset are test images' pairs that a release learnt: (stage, dataset)."""
    pairs = query(project.home.root, "FROM near_duplicates WHERE kind = 'learnt_leakage'")
    return set(pairs.select("stage", "dataset").rows())


def test_another_experiments_arrivals_are_held_once_that_looked_at_them(live):
    live.write("next", release=release(**DATA), **NEXT, stream=ADDRESS)
    fomo("run", "next")
    assert f"{ASKED}streams/toy/chunk_001: run an experiment of that" in told(live, "next", 1)
    assert learnt(live) == set()
    live.write("toy", release=release(), near_duplicates={})
    fomo("run", "toy")
    planned = {entry.asset: entry for entry in resolve_request("next", []).plan()}
    assert planned["next/near_duplicates_001"].reasons == (
        "the release that it starts from learnt something else",
    )
    assert planned["next/trained_001"].current
    fomo("run", "next")
    assert f"{LEARNT} are near duplicates of a test image, such as birds/" in told(live, "next", 1)
    assert learnt(live) == {(1, "birds")}
    fomo("store", "clean", "--yes")
    assert all(entry.current for entry in resolve_request("next", []).plan())


def test_an_arrival_that_changed_or_is_gone_is_held_as_it_was_learnt(live):
    live.write("toy", release=release(), near_duplicates={})
    fomo("run", "toy")
    old = ReleaseLog(live.home, "shop").read().live_candidate
    birds = live.root / "images/birds/train"
    for path in sorted(birds.glob("*/*.png")):
        path.rename(path.with_name(f"new_{path.name}"))
    live.write("toy", release=release(**DATA), **NEXT)
    fomo("run", "toy")
    fomo("store", "clean", "--yes")
    assert old.lineage["streams/toy/chunk_001"] not in {
        head.data_version for *_, head in live.home.heads.all()
    }
    assert LEARNT in told(live, "toy", 3)
    assert {dataset for _, dataset in learnt(live)} == {"birds"}
    live.write("toy", release=release(**DATA), **NEXT, stream=ADDRESS)
    fomo("run", "toy")
    assert LEARNT in told(live, "toy", 1)
