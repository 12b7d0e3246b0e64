"""An experiment of many stages with a few samples each: planning, a full run, and a run of nothing.

What it measures is what a stage costs beyond training: graph, plan, store, tables, Dagster. The
model and the pictures are as small as they can be. Imports are part of every command's seconds.

    python benchmarks/many_stages.py [--stages 200] [--folder FOLDER]
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

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_project(root: Path, stages: int) -> None:
    """An experiment `many` of one concept a stage, with replay from both pools."""
    write_pictures(root / "new", concepts=stages, train=4, test=1, pixels=18, suffix=".png")
    write_pictures(root / "old", concepts=5, train=20, test=4, pixels=18, suffix=".png", seed=1)
    experiment = {
        "datasets": {
            name: {"source": {"type": "folder", "path": f"../{name}"}} for name in ("new", "old")
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
        "evaluation": {"held_out": ["old"]},
        "batch_size": 9,
        "budget": {"steps": 2},
        "execution": {"device": "cpu"},
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
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        write_project(root, arguments.stages)
        rows = [
            (what, *timed(*command, root=root))
            for what, command in (
                ("command line alone", ("--help",)),
                ("plan, nothing there", ("plan", "many")),
                ("run", ("run", "many")),
                ("plan, all there", ("plan", "many")),
                ("run again", ("run", "many")),
                ("plan, another learning rate",
                 ("plan", "many", "--set", "optimiser.learning_rate=2e-5")),
                ("results", ("results", "many")),
            )
        ]  # fmt: skip
    print_figures(f"{arguments.stages} stages", ("command", "seconds", "peak MiB"), rows)


if __name__ == "__main__":
    main()
