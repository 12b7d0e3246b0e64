"""An experiment of many stages with a few samples each: planning, a full run, and a run of nothing.

What it measures is what a stage costs beyond training: graph, plan, store, tables, Dagster. The
model and the pictures are as small as they can be. Imports are part of every command's seconds.

    python benchmarks/many_stages.py [--stages 200] [--folder FOLDER]

With --experiments it is a sweep of that many seeds, which is only planned, on 64 slots too.

    python benchmarks/many_stages.py --stages 20 --experiments 40 [--datasets 63]

With --before it is what a further stage costs, by this code and by that of another checkout: runs
of a quarter of the stages and of all of them, in turn.

    python benchmarks/many_stages.py --stages 40 --before ../earlier
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from pictures import print_figures, write_pictures

from fomo_dagster.units import counted

HERE = Path(__file__).resolve().parents[1]
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_project(root: Path, stages: int, experiments: int = 1, datasets: int = 2) -> None:
    """An experiment `many` of one concept a stage, with replay from both pools; if experiments, a
    sweep of so many. datasets: two, and others of 40 concepts that are held out."""
    write_pictures(root / "new", concepts=stages, train=4, test=1, pixels=18, suffix=".png")
    write_pictures(root / "old", concepts=5, train=20, test=4, pixels=18, suffix=".png", seed=1)
    others = [f"other_{number}" for number in range(datasets - 2)]
    for name in others:
        write_pictures(root / name, concepts=40, train=1, test=1, pixels=8, suffix=".png")
    experiment = {
        "datasets": {
            name: {"source": {"type": "folder", "path": f"../{name}"}}
            for name in ("new", "old", *others)
        },
        "backbone": {
            "name": "toy",
            "architecture": ARCHITECTURE,
            "pretraining": {
                "pool": {"name": "old", "datasets": ["old"]},
                "batch_size": 8,
                "budget": {"steps": 2},
            },
        },
        "stream": {"name": "many", "datasets": ["new"], "stages": stages},
        "evaluation": {"held_out": ["old", *others]},
        "batch_size": 9,
        "budget": {"steps": 2},
        "execution": {"device": "cpu"},
        **({"sweep": {"seed": list(range(experiments))}} if experiments > 1 else {}),
    }
    (root / "experiments").mkdir(exist_ok=True)
    (root / "experiments" / "many.yaml").write_text(yaml.safe_dump(experiment))


class Took(NamedTuple):
    """What a command took: seconds, peak memory in MiB, and the CPU's seconds."""

    seconds: float
    peak: float
    cpu_seconds: float


def timed(*arguments: str, root: Path, source: Path = HERE) -> Took:
    """What a command took; its output goes to `root`. source: the checkout whose code it runs."""
    fomo = str(Path(sys.executable).with_name("fomo"))
    return timed_process([fomo, *arguments], root, source)


def timed_process(command: Sequence[str], root: Path, source: Path = HERE) -> Took:
    """As `timed`, of any command."""
    home = root / ".fomo"
    environment = {
        **os.environ, "FOMO_PROJECT": str(root), "FOMO_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": str(source),
    }  # fmt: skip
    started = time.perf_counter()
    with (root / "output.txt").open("a") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, cwd=root)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed; see {root / 'output.txt'}")
    seconds = time.perf_counter() - started
    return Took(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def cost_of_a_stage(root: Path, stages: int, source: Path) -> tuple[float, float]:
    """Seconds, and the CPU's, of a stage beyond the first quarter of so many, in new homes."""
    few = max(1, stages // 4)
    took = []
    for count in (few, stages):
        folder = root / f"{count}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_project(folder, count)
        took.append(timed("run", "many", root=folder, source=source))
    first, last = took
    further = stages - few
    return (
        (last.seconds - first.seconds) / further,
        (last.cpu_seconds - first.cpu_seconds) / further,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--experiments", type=int, default=1)
    parser.add_argument("--datasets", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    parser.add_argument("--before", type=Path, help="Another checkout, which is measured too.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if arguments.before is not None:
            codes = {"before": arguments.before.resolve(), "now": HERE}
            rows = [
                (name, *cost_of_a_stage(root / name, arguments.stages, source))
                for name, source in codes.items()
            ]
            print_figures("A further stage", ("code", "seconds", "CPU seconds"), rows)
            return
        write_project(root, arguments.stages, arguments.experiments, arguments.datasets)
        commands: list[tuple[str, tuple[str, ...]]] = [
            ("command line alone", ("--help",)),
            ("plan, nothing there", ("plan", "many")),
            ("the same on 64 slots", ("plan", "many", "--parallel", "64")),
        ]
        if arguments.experiments == 1:
            commands += [
                ("run", ("run", "many")),
                ("plan, all there", ("plan", "many")),
                ("run again", ("run", "many")),
                ("plan, another learning rate",
                 ("plan", "many", "--set", "optimiser.learning_rate=2e-5")),
                ("results", ("results", "many")),
            ]  # fmt: skip
        rows = [(what, *timed(*command, root=root)) for what, command in commands]
    title = f"{arguments.stages} stages, {counted(arguments.experiments, 'experiment')}"
    print_figures(title, ("command", "seconds", "peak MiB", "CPU seconds"), rows)


if __name__ == "__main__":
    main()
