"""Whole `fomo run` commands by one executor and by others: how much sooner, and the same bits.

    python benchmarks/side_by_side.py [--by in_process=cpu:1 processes=cpu:2 ray] [--samples 24000]
        [--only sweep merging evaluation] [--experiments quickstart merging/zs_merge …]

sweep: four trainings that share nothing but θ₀. merging: twenty stages that each start from θ₀.
evaluation: a stage trains while the one before is evaluated; how long both take together, against
the longer of the two by the first executor. experiments: shipped ones, for their bits.

Shards, pool and θ₀ are there before the clock starts, but for shipped experiments. Each process has
one thread, so that the bits can be compared; `--samples` is what each training of the sweep sees.
How long one training takes is said too: beside another it is slower, since they share the machine's
memory and caches. For `ray` a cluster of two nodes of one CPU is there while it is used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from kills import Cluster

FOMO = str(Path(sys.executable).with_name("fomo"))
BASE: dict[str, Any] = {
    "extends": "quickstart",
    "backbone.pretraining.budget.samples": 1280,
    "evaluation.adaptation": ["digits"],
    "evaluation.held_out": [],
}


MANY = {
    "many_shapes": {
        "source": {
            "type": "generated", "generator": "sprites", "seed": 11,
            "parameters": {"samples_per_concept": 0, "test_samples_per_concept": 600},
        },
        "prompt": "a drawing of a {}",
    }
}  # fmt: skip


def cases(samples: int) -> dict[str, dict[str, Any]]:
    """The experiment of each case, as its file declares it."""
    one_stage = {"stream.stages": 1, "budget.samples": samples}
    evaluation = {
        "evaluation.adaptation": None, "evaluation.held_out": list(MANY),
        "stream.stages": 2, "budget.samples": samples,
    }  # fmt: skip
    return {
        "evaluation": BASE | evaluation | {"stream.name": "two"},
        "sweep": BASE | one_stage | {"sweep": {"seed": [0, 1, 2, 3]}},
        "merging": BASE
        | {"stream.name": "twenty", "stream.stages": 20, "budget.samples": samples // 8}
        | {"method": {"combination": "zs_merge"}},
    }


Lines = list[tuple[float, str]]


def run(project: Path, home: Path, name: str, executor: str, devices: str) -> Lines:
    """The lines of `fomo run`, each with the seconds since it began; the last is its end."""
    environment = {
        **os.environ, "FOMO_HOME": str(home), "FOMO_EXECUTOR": executor, "FOMO_DEVICES": devices,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    began, lines = time.monotonic(), list[tuple[float, str]]()
    with subprocess.Popen(
        [FOMO, "run", name], env=environment, cwd=project, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines.extend((time.monotonic() - began, line) for line in process.stdout)
    if process.returncode:
        raise SystemExit("".join(line for _, line in lines))
    return [*lines, (time.monotonic() - began, "")]


@contextmanager
def cluster(executor: str) -> Iterator[None]:
    """A Ray cluster of two nodes, where one is needed."""
    if executor != "ray":
        yield
        return
    made = Cluster()
    time.sleep(10)  # until both nodes are at rest
    try:
        yield
    finally:
        made.end()


def spans(lines: Lines) -> dict[str, tuple[float, float]]:
    """The assets that were computed → when they began and ended."""
    begun: dict[str, float] = {}
    found = {}
    for seconds, line in lines:
        match line.split():
            case ["begin", asset]:
                begun[asset] = seconds
            case ["computed", asset, *_]:
                found[asset] = (begun[asset], seconds)
    return found


def contents(home: Path) -> Mapping[str, Any]:
    """The checksums of the files of every artifact."""
    return {
        path.parent.name: json.loads(path.read_text())["files"]
        for path in home.glob("store/[!.]*/*/manifest.json")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", nargs="+", default=["in_process=cpu:1", "processes=cpu:2"])
    parser.add_argument("--samples", type=int, default=24000)
    parser.add_argument("--only", nargs="+", default=["sweep", "merging", "evaluation"])
    parser.add_argument("--experiments", nargs="+", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "experiments").mkdir()
        (project / "datasets").mkdir()
        (project / "datasets" / "many.yaml").write_text(yaml.safe_dump(MANY))
        if arguments.experiments:
            compare_bits(project, arguments.experiments, arguments.by)
            return
        small = {"stream.stages": 1, "budget.samples": 128, "evaluation.adaptation": None}
        write(project, {**cases(arguments.samples), "before": BASE | small})
        run(project, project / "made", "before", "in_process", "cpu:1")
        for case in arguments.only:
            compare(project, case, arguments.by)


def compare(project: Path, case: str, by: list[str]) -> None:
    """A case by one executor after the other."""
    first: tuple[Lines, Mapping[str, Any]] | None = None
    for way in by:
        executor, _, devices = way.partition("=")
        home = project / f"{case}_{executor}"
        shutil.copytree(project / "made", home)
        with cluster(executor):
            lines, made = run(project, home, case, executor, devices), contents(home)
        first = first or (lines, made)
        took, alone = lines[-1][0], first[0][-1][0]
        same = "the same bits" if made == first[1] else "OTHER BITS"
        trainings = [
            end - begin for name, (begin, end) in spans(lines).items() if "/trained_" in name
        ]
        said = f"{case} {way}: {took:.1f} s, {alone / took:.2f} times, {same}"
        said += f"; a training {fmean(trainings):.1f} s"
        if case == "evaluation":
            pair = ["evaluation/trained_002", "evaluation/evaluation_001"]
            here, there = ([spans(one)[asset] for asset in pair] for one in (lines, first[0]))
            both = max(end for _, end in here) - min(begin for begin, _ in here)
            training, evaluation = (end - begin for begin, end in there)
            said += f"; both {both:.1f} s, alone {training:.1f} s and {evaluation:.1f} s"
        print(said, flush=True)


def compare_bits(project: Path, experiments: list[str], by: list[str]) -> None:
    """Shipped experiments in one home for each executor."""
    first: Mapping[str, Any] = {}
    for way in by:
        executor, _, devices = way.partition("=")
        home = project / executor
        with cluster(executor):
            took = sum(run(project, home, name, executor, devices)[-1][0] for name in experiments)
        made = contents(home)
        first = first or made
        same = "the same bits" if made == first else "OTHER BITS"
        print(f"{way}: {took:.1f} s, {len(made)} artifacts, {same}", flush=True)


def write(project: Path, declared: Mapping[str, dict[str, Any]]) -> None:
    """The experiments, each in its file."""
    for name, experiment in declared.items():
        nested: dict[str, Any] = {}
        for key, value in experiment.items():
            *parents, last = key.split(".")
            inner = nested
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
        (project / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(nested))


if __name__ == "__main__":
    main()
