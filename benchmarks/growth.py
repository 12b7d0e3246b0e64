"""What commands take as a home grows: by hundreds of experiments of 20 stages each.

One experiment of `many_stages.py` is run. The others' artifacts are copies of its own, without
weights, and the product writes their heads, rows and records as a run does.

    python benchmarks/growth.py [--experiments 10 100 500] [--declared N] [--folder FOLDER]

With --before each is measured by the code of another checkout, too, one after the other. With
--definitions nothing is run: it is how long Dagster's definitions of so many experiments take to
load, 17 of which have 740 assets and 146 have 6,158.

    python benchmarks/growth.py --definitions 17 146 --before ../earlier
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from many_stages import HERE, Took, timed, timed_process, write_project
from pictures import print_figures

from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.weights import WEIGHTS
from fomo_dagster.graph.run import materialise as materialising
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.store.recipes import Recipe

STAGES = 20
DEFINITIONS = "definitions"
IN_SWEEP = 100  # experiments
FIRST = "many_0_seed_0"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "results of all": ("results",),
    "results of one": ("results", "many_0/seed_0"),
    "a query": ("sql", "SELECT count(*) FROM evaluations"),
    "plan of one": ("plan", "many_0/seed_0"),
    "run of one, no-op": ("run", "many_0/seed_0"),
    "run of one asset": ("run", "many_0/seed_0"),
}
MADE_AGAIN = "heads/many_0_seed_0/scores.json"  # what `run of one asset` records


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


def definitions(root: Path, source: Path) -> Took:
    """What a process takes to load what Dagster does."""
    (root / ".fomo" / "dagster").mkdir(parents=True, exist_ok=True)
    code = "import fomo_dagster.definitions as d; d.defs.get_repository_def()"
    return timed_process([sys.executable, "-c", code], root, source)


def measured(
    root: Path, what: str, sources: Mapping[str, Path], rounds: int
) -> list[tuple[str, str, Took]]:
    """What a command, or loading the definitions, takes by each code: the least of some rounds."""
    found: dict[str, list[Took]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            if what == DEFINITIONS:
                found[name].append(definitions(root, source))
                continue
            if what == "run of one asset":
                (root / ".fomo" / MADE_AGAIN).unlink(missing_ok=True)
            found[name].append(timed(*COMMANDS[what], root=root, source=source))
    return [(what, name, min(took)) for name, took in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument(
        "--declared", type=int, help="So many stand in the project's files when commands are timed."
    )
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    parser.add_argument("--definitions", type=int, nargs="+", help="So many experiments, not run.")
    parser.add_argument("--rounds", type=int, default=3, help="Of which the least counts.")
    parser.add_argument("--before", type=Path, help="Another checkout, which is measured too.")
    arguments = parser.parse_args()
    before = {} if arguments.before is None else {"before": arguments.before.resolve()}
    sources = {**before, "now": HERE}
    rows: list[tuple[int, int, str, str, Took]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        is_new = not (root / "experiments").exists()
        if is_new:
            write_project(root, STAGES)
        for experiments in sorted(arguments.definitions or ()):
            declare(root, experiments)
            assets = len(build_project(root).nodes)
            rows += [
                (experiments, assets, *row)
                for row in measured(root, DEFINITIONS, sources, arguments.rounds)
            ]
        if is_new and not arguments.definitions:
            declare(root, 2)
            timed("run", "many_0/seed_0", root=root)
        for experiments in () if arguments.definitions else sorted(arguments.experiments):
            declare(root, experiments)
            assets = write_home(root)
            if arguments.declared is not None:
                declare(root, min(arguments.declared, experiments))
            for command in COMMANDS.values():  # the first of each verifies what is new
                timed(*command, root=root)
            for what in (*COMMANDS, DEFINITIONS):
                rows += [
                    (experiments, assets, *row)
                    for row in measured(root, what, sources, arguments.rounds)
                ]
    shown = [(*row, took.seconds, took.cpu_seconds) for *row, took in rows]
    columns = ("experiments", "assets", "what", "code", "seconds", "CPU seconds")
    print_figures("Growth", columns, shown)


if __name__ == "__main__":
    main()
