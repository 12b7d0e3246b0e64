"""A home on a disk that cannot be written: what is there can be read all the same."""

import errno
import json
import os
import shutil
import subprocess
import sys

import polars as pl
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.home import Home
from fomo_dagster.store.files import write_bytes

PROGRAM = """
import contextlib, io, json, os, sys
from fomo_dagster.cli.main import main

ended = []
for home, *arguments in json.loads(sys.argv[1]):
    os.environ["FOMO_HOME"] = home
    sys.argv = ["fomo", *arguments]
    output = io.TextIOWrapper(io.BytesIO())
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main()
    except SystemExit as stopped:
        output.flush()
        ended.append((stopped.code or 0, output.buffer.getvalue().decode()))
print(json.dumps(ended))
"""


@pytest.fixture
def project(finished_project):
    return finished_project


def on_a_read_only_disk(project, commands):
    """(status, output) of each command, which begins with the home that it is for, in one process
    that sees the project mounted read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(project.root),
             sys.executable, "-c", PROGRAM, json.dumps(commands)],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"}, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if not done.stdout and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.stdout, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


READS = {
    ("run", "toy"): "toy is up to date (18 assets)",
    ("plan", "toy"): "0 to compute, 18 hits",
    ("plan", "toy", "--set", "seed=3"): "8 to compute, 10 hits",
    ("results",): "KA",
    ("results", "toy", "--against", "samples", "--csv"): "toy,3",
    ("sql", "SELECT count(*) AS n FROM training_steps", "--csv"): "n\n8\n",
    ("datasets", "--quick"): "3 present",
    ("datasets", "show", "birds"): "contact_sheet.png",
    ("schedule", "toy"): "learning rate",
}
REFUSALS = {
    ("run", "toy", "--set", "seed=3"): "cannot be written (Read-only file system)",
    ("export", "toy", "weights.pt"): "cannot be written (Read-only file system)",
    ("report", "toy", "--to", "page"): "cannot be written (Read-only file system)",
    ("dagster-home",): "cannot be written (Read-only file system)",
}
DAMAGED = {
    ("plan", "toy"): (0, "cannot be moved away (Read-only file system) and counts as missing"),
    ("plan", "toy", "--json"): (0, "scores are written again: its bytes were altered"),
    ("results",): (1, "its bytes were altered"),
    ("export", "toy", "/dev/null"): (1, "is gone: `fomo run` of an experiment"),
    ("run", "toy"): (1, "Read-only file system"),
}


def damage(home):
    """Change the last byte of a checkpoint and of a table."""
    kind, digest = home.heads.read("toy/trained_003").artifacts["only"]
    weights = home.store.folder(kind, digest) / "weights.safetensors"
    for path in (weights, *home.root.glob("tables/scores/toy/scores/*.parquet")):
        path.write_bytes(path.read_bytes()[:-1] + b"!")


def test_what_is_there_can_be_read_and_what_needs_a_place_is_refused(finished_project, tmp_path):
    home = finished_project.home
    for name in ("cache", "leases", "store/.verified", "store/.leases", "dagster"):
        shutil.rmtree(home.root / name)  # as in a copy of what counts
    damaged = Home(shutil.copytree(home.root, finished_project.root / "damaged"))
    damage(damaged)
    exported = tmp_path / "weights.pt"
    reads = {**READS, ("export", "toy", str(exported)): "create_model"}
    ended = on_a_read_only_disk(
        finished_project,
        [
            *((str(home.root), *arguments) for arguments in (*reads, *REFUSALS)),
            *((str(damaged.root), *arguments) for arguments in DAMAGED),
        ],
    )
    expected = [
        *((arguments, 0, said) for arguments, said in reads.items()),
        *((arguments, 1, said) for arguments, said in REFUSALS.items()),
        *((arguments, status, said) for arguments, (status, said) in DAMAGED.items()),
    ]
    for (arguments, status, said), (found, output) in zip(expected, ended, strict=True):
        assert (found, "Traceback" in output) == (status, False), (arguments, output)
        assert said in output, arguments
    assert exported.stat().st_size > 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("No space left on device (os error 28): …"),  # as Polars raises it
        pl.exceptions.ComputeError("Read-only file system (os error 30)"),
    ],
)
def test_caches_that_cannot_be_written_are_skipped_whoever_says_so(
    ends, project, monkeypatch, error
):
    def refuse(*_, **__):
        raise error

    for name in ("cache", "store/.verified"):
        shutil.rmtree(project.home.root / name)
    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", refuse)
    ends(lambda project: None, ["plan", "toy"], 0, ["0 to compute, 18 hits"])
    ends(lambda project: None, ["results"], 0, ["toy"])
    assert not [path for path in project.home.root.glob("cache/**/*") if path.is_file()]
    with pytest.raises(StoreError, match=r"cannot be written|no space left"):
        write_bytes(project.home.root / "other", b"")
