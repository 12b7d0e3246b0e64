"""Bad input through the real command: a sentence that helps, a status, and nothing lost."""

import re
import subprocess
import sys

import pytest
import torch

from fomo_dagster.cli.main import main

pytestmark = pytest.mark.slow

STREAM = {"name": "toy", "datasets": ["birds", "cats"], "stages": 3}


def fomo(*arguments):
    """Run a command in this process; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fomo", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    return stopped.value.code


def spoil(project, *names):
    """Cut images of birds in half."""
    for name in names:
        path = project.root / "images/birds" / name
        path.write_bytes(path.read_bytes()[:60])


def with_dataset(project, **source):
    project.write("toy", datasets={"own": {"source": source}}, evaluation={"held_out": ["own"]})


def missing_images(project):
    (project.root / "own.csv").write_text("path,concept,split\nnot/there.png,x,train\n")
    with_dataset(project, type="manifest", path="../own.csv")


def the_same_key(project):
    image = project.root / "images/old/train/red/0.png"
    (project.root / "own.csv").write_text(
        f"path,concept,split,key\n{image},a,train,twice\n{image},b,train,twice\n"
    )
    with_dataset(project, type="manifest", path="../own.csv")


def other_weights(project):
    torch.save({"visual.proj": torch.zeros(3, 3)}, project.root / "other.pt")
    architecture = project.load().experiment.backbone.architecture
    project.write("toy", backbone={
        "name": "other", "architecture": architecture, "weights": "../other.pt"
    }, pretraining_pool={"name": "toy", "datasets": ["old"]})  # fmt: skip


def unsafe_name(project):
    path = project.root / "experiments/toy.yaml"
    path.write_text(path.read_text() + "name: ../toy\n")


BEFOREHAND = {
    "an unknown key": (
        lambda p: p.write("toy", batchsize=4), 2, ["toy.yaml", "'batchsize'", "batch_size"],
    ),
    "an unknown value": (
        lambda p: p.write("toy", precision="fp15"), 2, ["precision", "'fp15'", "fp16"],
    ),
    "a dataset that does not exist": (
        lambda p: p.write("toy", stream=STREAM | {"datasets": ["birds", "cat"]}), 2,
        ["'cat'", "did you mean 'cats'"],
    ),
    "a concept that does not exist": (
        lambda p: p.write("toy", stream={"concepts": ["birds+++robyn", "birds+++wren"],
                                         "stages": 2}), 2, ["robyn", "robin"],
    ),
    "more stages than concepts": (
        lambda p: p.write("toy", stream=STREAM | {"stages": 7}), 2, ["7", "6", "stages"],
    ),
    "shares that do not add up": (
        lambda p: p.write("toy", mixture={"update": 0.5, "buffer": 0.4, "pretraining": 0.4}), 2,
        ["mixture", "1.3"],
    ),
    "a pretraining share without a pool": (
        lambda p: p.write("toy", backbone={
            "name": "v", "architecture": "ViT-B-32", "pretrained": "openai"}), 2,
        ["mixture.pretraining", "0.33", "pretraining_pool"],
    ),
    "an experiment whose name is not a safe file name": (
        unsafe_name, 2, ["name", "'../toy'"],
    ),
    "a table that names missing images": (missing_images, 1, ["own", "not/there.png"]),
    "two samples with one key": (the_same_key, 1, ["own", "twice"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFOREHAND)
def test_what_can_be_known_beforehand_stops_a_run_before_anything_is_made(project, capsys, case):
    change, status, said = BEFOREHAND[case]
    change(project)
    assert fomo("run", "toy") == status
    output = capsys.readouterr()
    for words in said:
        assert words in output.err
    assert "Traceback" not in output.err
    assert project.artifacts() == set()
    assert fomo("plan", "toy") == status


IN_A_STEP = {
    "unreadable images above the limit": (
        lambda p: spoil(p, "train/robin/0.png"), [],
        ["shards/birds: 1 of 24 images (4.17%) cannot be read", "unreadable_limit = 1.00%",
         "robin/0.png"],
    ),
    "a loss that is not finite": (
        lambda p: None, ["--set", "optimiser.learning_rate=1e9"],
        ["toy/trained_001: stage 1, step", "learning rate 1e+0", "samples: ", "resume point",
         "Lower the learning rate"],
    ),
    "weights that do not fit the architecture": (
        other_weights, [], ["backbones/other: ", "other.pt", "visual.proj"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_A_STEP)
def test_what_fails_in_a_step_is_the_engines_own_sentence(finished_project, capsys, case):
    change, arguments, said = IN_A_STEP[case]
    before = finished_project.artifacts()
    change(finished_project)
    assert fomo("run", "toy", *arguments) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    for words in said:
        assert words in line
    assert before <= finished_project.artifacts()  # nothing is lost
    assert not list(finished_project.home.root.glob("store/.staging/*"))


def test_unreadable_images_below_the_limit_are_left_out_and_counted(finished_project, capsys):
    path = finished_project.root / "datasets/toy.yaml"
    path.write_text(path.read_text().replace("birds:\n", "birds:\n  unreadable_limit: 0.05\n"))
    spoil(finished_project, "test/robin/0.png")
    assert fomo("run", "toy") == 0
    capsys.readouterr()
    fomo("sql", "--csv", "SELECT quarantined FROM datasets WHERE dataset = 'birds'")
    assert capsys.readouterr().out.split() == ["quarantined", "1"]


TWICE = """
import os, sys
from fomo_dagster.cli.main import main
sys.argv = ["fomo", "run", "toy"]
for size in ("{size}k", "100m"):
    os.system("mount -o remount,size=" + size + " {home}")
    try:
        main()
    except SystemExit as stopped:
        print("status", stopped.code)
"""
FULL = """
set -e
mount -t tmpfs tmpfs {home}
cp -r {saved}/. {home}
exec {python} {script}
"""


def test_a_full_disk_is_said_and_costs_nothing_that_was_finished(finished_project, tmp_path):
    """On a small file system of its own, in a mount namespace that ends with the command."""
    isolated = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*isolated, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a file system of their own")
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    home = finished_project.home.root
    saved = home.rename(tmp_path / "saved")
    home.mkdir()
    used = sum(-(-p.stat().st_size // 4096) * 4 for p in saved.rglob("*") if p.is_file())
    script = tmp_path / "twice.py"
    script.write_text(TWICE.format(size=used + 4500, home=home))
    shell = FULL.format(home=home, saved=saved, python=sys.executable, script=script)
    ended = subprocess.run(
        [*isolated, "bash", "-c", shell], capture_output=True, text=True, check=False
    )
    assert re.findall(r"status (\d+)", ended.stdout) == ["1", "0"], ended.stdout + ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.strip()]
    assert line.startswith("error: toy/")
    assert "no space left" in line
    assert "FOMO_HOME" in line
