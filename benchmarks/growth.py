"""What commands take as a home grows: by hundreds of experiments of 20 stages each.

One experiment of `many_stages.py` is run. The others' artifacts are copies of its own, without
weights, and the product writes their heads, rows and records as a run does.

    python benchmarks/growth.py [--experiments 10 100 500] [--declared N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from many_stages import timed, write_project
from pictures import print_figures

from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.weights import WEIGHTS
from fomo_dagster.graph.run import materialise as materialising
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.store.recipes import Recipe

STAGES = 20
IN_SWEEP = 100  # experiments
FIRST = "many_0_seed_0"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "results of all": ("results",),
    "results of one": ("results", "many_0/seed_0"),
    "a query": ("sql", "SELECT count(*) FROM evaluations"),
    "plan of one": ("plan", "many_0/seed_0"),
    "run of one, no-op": ("run", "many_0/seed_0"),
}


def declare(root: Path, experiments: int) -> None:
    """Have sweeps `many_0`, `many_1` and so on be of this many seeds together."""
    folder = root / "experiments"
    first = folder / "many_0.yaml"
    if (folder / "many.yaml").exists():
        (folder / "many.yaml").rename(first)
    declared = yaml.safe_load(first.read_text())
    for path in folder.glob("many_*.yaml"):
        path.unlink()
    for number, start in enumerate(range(0, experiments, IN_SWEEP)):
        seeds = list(range(start, min(start + IN_SWEEP, experiments)))
        sweep = {"sweep": {"seed": seeds}}
        (folder / f"many_{number}.yaml").write_text(yaml.safe_dump(declared | sweep))


def write_home(root: Path) -> int:
    """Materialise whatever the project declares and its home lacks; the number of assets."""
    home, graph = Home(root / ".fomo"), build_project(root)
    context = RunContext(graph, home)
    with (
        patch.object(materialising, "make", partial(_copied, home=home)),
        patch.object(os, "fsync", lambda descriptor: None),
    ):
        for key in graph.nodes:
            if home.heads.read(key) is None:
                materialising.materialise(key, context)
    return len(graph.nodes)


def _copied(
    node: Node, name: str, recipe: Recipe, folder: Path, *_: Any, home: Home
) -> Mapping[str, Any]:
    """As `launching.make`, from what the same asset of the first experiment has."""
    assert node.experiment is not None, node.key
    first = home.heads.read(node.key.replace(node.experiment, FIRST, 1))
    assert first is not None, node.key
    made = home.store.folder(*first.artifacts[name])
    written_by_store = shutil.ignore_patterns("manifest.json", "cost.json")
    shutil.copytree(made, folder, ignore=written_by_store, dirs_exist_ok=True)
    if (folder / WEIGHTS).exists():
        (folder / WEIGHTS).write_bytes(recipe.digest.encode())
    return first.cost


def definitions(root: Path) -> float:
    """Seconds that a process takes to load what Dagster does."""
    environment = {**os.environ, "FOMO_PROJECT": str(root), "FOMO_HOME": str(root / ".fomo")}
    environment["DAGSTER_HOME"] = str(root / ".fomo" / "dagster")
    started = time.perf_counter()
    code = "import fomo_dagster.definitions as d; d.defs.get_repository_def()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument(
        "--declared", type=int, help="So many stand in the project's files when commands are timed."
    )
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if not (root / "experiments").exists():
            write_project(root, STAGES)
            declare(root, 2)
            timed("run", "many_0/seed_0", root=root)
        for experiments in sorted(arguments.experiments):
            declare(root, experiments)
            assets = write_home(root)
            if arguments.declared is not None:
                declare(root, min(arguments.declared, experiments))
            for command in COMMANDS.values():  # the first of each verifies what is new
                timed(*command, root=root)
            took = {what: timed(*command, root=root)[0] for what, command in COMMANDS.items()}
            took["definitions"] = definitions(root)
            rows += [(experiments, assets, what, seconds) for what, seconds in took.items()]
    print_figures("Growth", ("experiments", "assets", "what", "seconds"), rows)


if __name__ == "__main__":
    main()
