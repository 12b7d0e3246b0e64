"""An artifact that was truncated or altered between runs is noticed, and made again as it was."""

import shutil

import pytest

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.graph.work.checkpoints import WEIGHTS


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def alter(path):
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def delete(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "asset", "name", "file", "said"),
    [
        (truncate, "toy/trained_002", "only", WEIGHTS, "weights.safetensors has "),
        (alter, "shards/birds", "only", "train-000000.tar", "the bytes of train-000000.tar were a"),
        (delete, "toy/evaluation_001", "cats", "metrics.parquet", "metrics.parquet is missing"),
    ],
)  # fmt: skip
def test_a_damaged_artifact_is_said_and_it_alone_made_again_with_the_same_bytes(
    finished_project, nursery, damage, asset, name, file, said
):
    kind, digest = finished_project.home.heads.read(asset).artifacts[name]
    path = finished_project.home.store.folder(kind, digest) / file
    good, before = path.read_bytes(), finished_project.artifacts()
    damage(path)
    status, output = nursery.run(finished_project, "run", "toy")
    assert status == 0, output
    assert f"{kind} {digest} in the store is damaged: " in output
    assert said in output
    assert path.read_bytes() == good
    assert finished_project.artifacts() == before
    computed = [line.split()[1] for line in output.splitlines() if line.split()[:1] == ["computed"]]
    assert computed == [asset]
    assert nursery.run(finished_project, "run", "toy")[1].startswith("toy is up to date")


def test_two_homes_hold_the_same_bytes_of_all_that_an_experiment_makes(finished_project, finished):
    """But for what a run says of itself: clocks, memory, plots."""
    shutil.rmtree(finished_project.home.root / "store")
    run_experiment("toy", [])

    def files(project):
        root = project.home.root / "store"
        paths = (path for path in root.glob("[!.]*/*/**/*") if path.is_file())
        names = {path.relative_to(root).as_posix(): path for path in paths}
        return {name: path for name, path in names.items() if "/record/" not in name}

    one, other = files(finished), files(finished_project)
    assert one.keys() == other.keys()
    assert {name.partition("/")[0] for name in one} == {
        "backbone", "chunk", "evaluation", "leaderboard", "order", "pool", "scores", "shards",
        "text_embeddings", "trained",
    }  # fmt: skip
    different = [name for name in one if one[name].read_bytes() != other[name].read_bytes()]
    assert different == []
