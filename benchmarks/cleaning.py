"""Clean a home of many experiments: what that frees, and what a kill leaves.

    python benchmarks/cleaning.py [--experiments 40] [--keep 4] [--tries 50] [--seed 0]

It runs a sweep of so many tiny experiments over the quickstart's digits, then changes half of them
and runs again, so that artifacts are left that nothing needs. Of copies of that home, each try
kills -9 a cleaning at a random moment, or two that clean at once, and looks at what is left: each
artifact must be whole or gone, and the next cleaning must end as one that nobody killed. At last it
cleans with `--keep`, and plans what was kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

FOMO = str(Path(sys.executable).with_name("fomo"))
EXPERIMENT: dict[str, Any] = {
    "extends": "quickstart",
    "backbone": {"pretraining": {"budget": {"samples": 128}}},
    "stream": {"stages": 2},
    "budget": {"samples": 128},
    "evaluation": {"adaptation": ["digits"], "held_out": ["shapes"], "subset": 0.1},
}


class Place:
    """A project, and homes of it."""

    def __init__(self, project: Path) -> None:
        self.project = project
        (project / "experiments").mkdir()

    def declare(self, seeds: int, changed: int) -> None:
        """A sweep over seeds, of which the last `changed` are others than before."""
        values = {
            f"e{seed:02d}": seed if seed < seeds - changed else seed + 1000 for seed in range(seeds)
        }
        text = yaml.safe_dump({**EXPERIMENT, "sweep": {"seed": values}})
        (self.project / "experiments" / "many.yaml").write_text(text)

    def start(self, home: Path, *arguments: str) -> subprocess.Popen[str]:
        """Begin `fomo` on a home."""
        environment = {**os.environ, "FOMO_HOME": str(home), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [FOMO, *arguments], env=environment, cwd=self.project, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def fomo(self, home: Path, *arguments: str) -> str:
        """What a command prints that must succeed."""
        process = self.start(home, *arguments)
        output, errors = process.communicate()
        if process.returncode:
            raise SystemExit(output + errors)
        return output


def half_gone(home: Path) -> list[str]:
    """The artifacts that are neither whole nor gone."""
    found = []
    for folder in home.glob("store/[!.]*/*"):
        try:
            files = json.loads((folder / "manifest.json").read_bytes())["files"]
            if any((folder / n).stat().st_size != f["size"] for n, f in files.items()):
                found.append(folder.name)
        except OSError:
            found.append(folder.name)
    return found


def contents(home: Path) -> set[str]:
    """The artifacts of a home."""
    return {f"{p.parent.name}/{p.name}" for p in home.glob("store/[!.]*/*")}


def size(home: Path) -> int:
    """Bytes of the store."""
    return sum(p.stat().st_size for p in (home / "store").rglob("*") if p.is_file())


def killed(place: Place, home: Path, longest: float, count: int, clean: Sequence[str]) -> bool:
    """Kill so many that clean at once, at a random moment; whether one was hit."""
    processes = [place.start(home, *clean) for _ in range(count)]
    before = len(contents(home))
    until = time.monotonic() + 60
    if random.random() < 0.7:  # else anywhere, mostly before it begins
        while len(contents(home)) == before and time.monotonic() < until:
            if all(process.poll() is not None for process in processes):
                break
            time.sleep(0.0002)
        time.sleep(random.uniform(0, 0.02))
    else:
        time.sleep(random.uniform(0, longest))
    hit = any(process.poll() is None for process in processes)
    for process in processes:
        process.kill()
        process.communicate()
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=40)
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place, made = Place(Path(folder)), Path(folder) / "made"
        place.declare(arguments.experiments, 0)
        place.fomo(made, "run", "many")
        place.declare(arguments.experiments, arguments.experiments // 2)
        place.fomo(made, "run", "many")
        names = sorted(
            one["name"] for one in json.loads(place.fomo(made, "store", "--json"))["experiments"]
        )
        kept = names[: arguments.keep]
        clean = ["store", "clean", "--yes"]
        alone = Path(folder) / "alone"
        shutil.copytree(made, alone)
        began = time.monotonic()
        place.fomo(alone, *clean)
        longest, expected = time.monotonic() - began, contents(alone)
        for number in range(arguments.tries):
            home = Path(folder) / f"try_{number}"
            shutil.copytree(made, home)
            count = 1 + number % 2
            hit = killed(place, home, longest, count, clean)
            left, half = len(contents(home)), half_gone(home)
            place.fomo(home, *clean)
            is_other = contents(home) != expected
            trash = list(home.glob("store/.trash/*"))
            seen["hit"] += hit
            seen["in the middle"] += len(expected) < left < len(contents(made))
            seen["half gone"] += bool(half)
            seen["other contents"] += is_other
            seen["left behind"] += bool(trash)
            print(f"{number + 1}: {count} cleaning, {left} artifacts left, half gone: {half}"
                  + ", OTHER CONTENTS" * is_other, flush=True)  # fmt: skip
            shutil.rmtree(home)
        print(dict(seen))
        steps = (clean, [*clean, *(word for name in kept for word in ("--keep", name))])
        print(f"{len(names)} experiments: {size(made):,} bytes, {len(contents(made))} artifacts")
        for command in steps:
            began = time.monotonic()
            place.fomo(made, *command)
            print(f"fomo {' '.join(command)}: {size(made):,} bytes, {len(contents(made))} "
                  f"artifacts, {time.monotonic() - began:.1f} s")  # fmt: skip
        planned = json.loads(place.fomo(made, "plan", "many", "--json"))
        print(f"fomo plan many: {planned['compute']} to compute, {planned['hits']} hits")


if __name__ == "__main__":
    main()
