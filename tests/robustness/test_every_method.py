"""Every shipped file of a method, merge or mixture, at toy size, killed once and resumed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fomo_dagster.experiment.extending import merged
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.training.learner import Learner

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uncounted", "undrawn")]

SHIPPED = Path(__file__).resolve().parents[2] / "experiments"
FOLDERS = ("methods", "merging", "mixtures")
FILES = [file for folder in FOLDERS for file in sorted((SHIPPED / folder).glob("*"))]
# Not in merging, where all train alike: test_merging_over_time.py kills each combination.
KILLED = [file for file in FILES if file.parent.name != "merging"]
STEPS, STAGES = 3, 2
TOY_SIZES = {
    "rank": 4,  # of layers that are 16 wide
    "block_size": 4,
    "every": 1,  # of three steps
    "capacity": 5,  # of the 9 samples that the first stage brings
    "capacity_mib": 0.001,
    "pretraining": {  # of another backbone
        "pool": {"name": "toy", "datasets": ["old"]},
        "batch_size": 8,
        "budget": {"steps": STEPS},
    },
}
SECTIONS = {"method", "optimiser", "mixture", "schedule", "selection", "buffer"}


class KilledError(Exception):
    """What a process that is killed would not live to raise."""


def toy_sized(values: dict) -> dict:
    """The sections with what does not fit the toy's layers and data made to fit."""

    def fitting(key: str, value: object) -> object:
        if key in TOY_SIZES and isinstance(value, type(TOY_SIZES[key])):
            return TOY_SIZES[key]
        return toy_sized(value) if isinstance(value, dict) else value

    return {key: fitting(key, value) for key, value in values.items()}


def graph_as_toy(project, file: Path, **execution: object) -> Graph:
    """That of the shipped file's sections over the toy's data."""
    shipped = yaml.safe_load(file.read_text())
    if shipped["extends"] != "quickstart":  # another of them, by its name
        other = file.parents[1] / f"{shipped['extends']}.yaml"
        shipped = merged(yaml.safe_load(other.read_text()), shipped)
    assert shipped.keys() <= SECTIONS | {"extends", "description"}, "a section that is not tested"
    project.write(
        "tried",
        stream={"name": "toy_2", "datasets": ["birds", "cats"], "stages": STAGES},
        budget={"steps": STEPS},
        execution={"device": "cpu", **execution},
        **toy_sized({key: shipped[key] for key in SECTIONS & shipped.keys()}),
    )
    return project.graph("tried")


def made(home) -> dict:
    """Asset → its digest and the checksums of its weights and what else goes on to later stages."""
    found = {}
    for path in sorted((home.root / "heads" / "tried").glob("*.json")):
        head = json.loads(path.read_text())
        for kind, digest in head["artifacts"].values():
            files = json.loads((home.store.folder(kind, digest) / "manifest.json").read_text())
            found[head["asset"], digest] = {
                name: file["checksum"]
                for name, file in files["files"].items()
                if name.endswith(".safetensors")
            }
    return found


def train(graph: Graph, home: Home, *, from_stage: int) -> None:
    """What the weights of the first stage need, or those of the stages after it, in order;
    evaluations are the same for all."""
    keys = [
        node.key
        for node in graph.of("tried")
        if node.kind not in ("evaluation", "scores", "leaderboard")
    ]
    second = keys.index("tried/trained_001") + 1
    run_context = RunContext(graph, home)
    for key in keys[:second] if from_stage == 1 else keys[second:]:
        materialise(key, run_context)


@pytest.mark.parametrize("file", KILLED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_method_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    file, finished_project, tmp_path, monkeypatch
):
    """In the second stage, which has what the first one left; with a resume point after each
    step."""
    graph, home = graph_as_toy(finished_project, file), finished_project.home
    train(graph, home, from_stage=1)
    killed = Home(shutil.copytree(home.root, tmp_path / "killed"))
    train(graph, home, from_stage=2)
    graph = graph_as_toy(finished_project, file, resume_seconds=1e-9)
    step, steps = Learner.step, iter(range(STEPS))

    def killing(learner, *arguments):
        if next(steps) == 1:
            raise KilledError
        return step(learner, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", killing)
        with pytest.raises(KilledError):
            train(graph, killed, from_stage=2)
    assert list(killed.resume_points.glob("*/resume.pt"))
    train(graph, killed, from_stage=2)
    whole = made(home)
    assert sum(asset.startswith("tried/trained") for asset, _ in whole) == STAGES
    assert made(killed) == whole
