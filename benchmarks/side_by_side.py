"""Whole `fomo run` commands by one executor and by others: how much sooner, and the same bits.

    python benchmarks/side_by_side.py [--by in_process=cpu:1 processes=cpu:2] [--samples 24000]
        [--only sweep merging evaluation]

sweep: four trainings that share nothing but θ₀. merging: twenty stages that each start from θ₀.
evaluation: a stage trains while the one before is evaluated on enough datasets to last as long.
Shards, pool and θ₀ are there before the clock starts. Each process has one thread, so that the
bits can be compared; `--samples` is what each training of the sweep sees.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FOMO = str(Path(sys.executable).with_name("fomo"))
BASE: dict[str, Any] = {
    "extends": "quickstart",
    "backbone.pretraining.budget.samples": 1280,
    "evaluation.adaptation": ["digits"],
    "evaluation.held_out": [],
}


def cases(samples: int) -> dict[str, dict[str, Any]]:
    """The experiment of each case, as its file declares it."""
    one_stage = {"stream.stages": 1, "budget.samples": samples}
    return {
        "sweep": BASE | one_stage | {"sweep": {"seed": [0, 1, 2, 3]}},
        "merging": BASE
        | {"stream.name": "twenty", "stream.stages": 20, "budget.samples": samples // 8}
        | {"method": {"combination": "zs_merge"}},
    }


def run(project: Path, home: Path, name: str, executor: str, devices: str) -> float:
    """The wall time of `fomo run`, in seconds."""
    environment = {
        **os.environ, "FOMO_HOME": str(home), "FOMO_EXECUTOR": executor, "FOMO_DEVICES": devices,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    began = time.monotonic()
    with (home.parent / f"{home.name}_{name}.log").open("w") as output:
        subprocess.run(
            [FOMO, "run", name], env=environment, cwd=project, check=True, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    return time.monotonic() - began


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
    parser.add_argument("--only", nargs="+", default=["sweep", "merging"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "experiments").mkdir()
        declared = cases(arguments.samples)
        small = {"stream.stages": 1, "budget.samples": 128}
        write(project, {**declared, "before": BASE | small})
        run(project, project / "made", "before", "in_process", "cpu:1")
        for case in arguments.only:
            first: tuple[float, Mapping[str, Any]] | None = None
            for way in arguments.by:
                executor, _, devices = way.partition("=")
                home = project / f"{case}_{executor}"
                shutil.copytree(project / "made", home)
                took, made = run(project, home, case, executor, devices), contents(home)
                first = first or (took, made)
                same = "the same bits" if made == first[1] else "OTHER BITS"
                print(
                    f"{case} {way}: {took:.1f} s, {first[0] / took:.2f} times, {same}", flush=True
                )


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
