"""`fomo schedule`: the learning rates of an experiment's stages, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import polars as pl
from rich.console import Console
from rich.table import Table

from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.budget import BudgetDetails, BudgetNode
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home, project_folder
from fomo_dagster.training.steps import known_steps
from fomo_dagster.units import counted

_BARS = "▁▂▃▄▅▆▇█"
MOST_RATES = 5_000_000  # which take half a minute
_WIDTH = 32  # characters of a stage's curve: the table fits into 80


def rates_of(
    name_or_path: str, overrides: Sequence[str], steps: int | None, stages: int | None
) -> tuple[str, pl.DataFrame]:
    """The experiment's name, and a row for each step of each stage: stage, step, learning_rate, and
    that of each tower (image_tower, text_tower).

    steps: of a stage, where the budget does not say; stages: how many, where the stream has another
    number. Raises `InputError` where there are none or too many to show, and where the schedule
    does not fit into them.
    """
    loaded = load_experiment(name_or_path, project_folder(), overrides)
    experiment = loaded.experiment
    graph = build_graph([loaded])
    nodes = graph.of(experiment.name)
    stages = stages or max((n.stage for n in nodes if isinstance(n, TrainedNode)), default=0)
    if not stages:
        raise InputError(f"{experiment.name} has no stage to train: say for how many with --stages")
    steps = steps or _bought_steps(graph, nodes) or known_steps(experiment)
    problem = experiment.misfit(steps)
    if problem is not None:
        raise InputError(problem)
    if stages * steps > MOST_RATES:
        raise InputError(
            f"{experiment.name} has {counted(stages, 'stage')} of {counted(steps, 'step')}, and "
            f"`fomo schedule` computes the learning rate of {MOST_RATES:,} steps at most: ask for "
            "fewer with --stages or --steps"
        )
    return experiment.name, rates_by_step(experiment, stages, steps)


def _bought_steps(graph: Graph, nodes: Sequence[Node]) -> int | None:
    """Of a stage, where the budget is one of memory-adjusted FLOPs."""
    for node in nodes:
        if isinstance(node, BudgetNode):
            context = RunContext(graph, Home.from_environment())
            return int(node.predict(node.recipes({}), context).of(BudgetDetails).steps)
    return None


def rates_by_step(settings: TrainingSettings, stages: int, steps: int) -> pl.DataFrame:
    """As `rates_of` says it."""
    rows = []
    for stage in range(1, stages + 1):
        for step in range(steps):
            rate = settings.schedule.learning_rate(
                settings.peak_learning_rate, stage=stage, step=step, steps=steps
            )
            factors = settings.tower_factors(step, steps)
            towers = (rate * factors.get(tower, 1.0) for tower in ("image", "text"))
            rows.append((stage, step, rate, *towers))
    names = ["stage", "step", "learning_rate", "image_tower", "text_tower"]
    return pl.DataFrame(rows, schema=names, orient="row")


def print_rates(name: str, rates: pl.DataFrame, console: Console | None = None) -> None:
    """A line for each stage: its curve, and the learning rates at its beginning, top and end."""
    steps = rates.filter(stage=1).height
    table = Table(
        title=f"{name}: learning rate over {steps} steps a stage",
        title_justify="left", title_style="bold", header_style="bold", box=None,
    )  # fmt: skip
    table.add_column("stage", justify="right")
    table.add_column("")
    for column in ("first", "highest", "at step", "last"):
        table.add_column(column, justify="right")
    top = max(rates["learning_rate"])
    for (stage,), of_stage in rates.group_by("stage", maintain_order=True):
        values = of_stage["learning_rate"]
        highest = values.arg_max() or 0
        table.add_row(
            str(stage), _curve(values.to_list(), top), f"{values[0]:.3g}",
            f"{values[highest]:.3g}", str(highest), f"{values[-1]:.3g}",
        )  # fmt: skip
    console = console or Terminal()
    console.print(table)
    waits = [t for t in ("image", "text") if (rates[f"{t}_tower"] < rates["learning_rate"]).any()]
    for tower in waits:
        waiting = (pl.col(f"{tower}_tower") == 0) & (pl.col("learning_rate") > 0)
        alone = rates.filter(waiting, stage=1).height
        say(console, f"The {tower} tower's is 0 over the first {alone} steps of each stage.")


def _curve(values: Sequence[float], top: float) -> str:
    """The values in blocks, each as high as the highest of the steps that it stands for."""
    width = min(_WIDTH, len(values))
    edges = [round(place * len(values) / width) for place in range(width + 1)]
    peaks = [max(values[a:b]) for a, b in pairwise(edges)]
    return "".join(_BARS[min(int(peak / top * len(_BARS)), len(_BARS) - 1)] for peak in peaks)
