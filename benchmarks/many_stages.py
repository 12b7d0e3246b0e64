"""An experiment of many stages with a few samples each: planning, a full run, and a run of nothing.

What it measures is what a stage costs beyond training: graph, plan, store, tables, Dagster. The
model and the pictures are as small as they can be. Imports are part of every command's seconds.

    python benchmarks/many_stages.py [--stages 200] [--folder FOLDER]

With --experiments it is a sweep of that many seeds, which is only planned, on 64 slots too.

    python benchmarks/many_stages.py --stages 20 --experiments 40 [--datasets 63]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from pictures import print_figures, write_pictures

from fomo_dagster.units import counted

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


def timed(*arguments: str, root: Path) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command; its output goes to `root`."""
    environment = {**os.environ, "FOMO_PROJECT": str(root), "FOMO_HOME": str(root / ".fomo")}
    started = time.perf_counter()
    with (root / "output.txt").open("a") as output:
        command = [str(Path(sys.executable).with_name("fomo")), *arguments]
        process = subprocess.Popen(command, env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed; see {root / 'output.txt'}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--experiments", type=int, default=1)
    parser.add_argument("--datasets", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
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
    print_figures(title, ("command", "seconds", "peak MiB"), rows)


if __name__ == "__main__":
    main()
