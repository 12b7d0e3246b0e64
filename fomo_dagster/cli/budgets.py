"""`fomo budget`: what a step of an experiment's method costs, and how many a budget buys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from fomo_dagster.cli.output import Terminal, cell, say
from fomo_dagster.cli.rows import print_table
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.weights_folder import described, located
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.work.budgets import MemoryAdjusted, budget_row, case_of, full_finetuning
from fomo_dagster.home import Home, project_folder
from fomo_dagster.training.cost_case import CostCase
from fomo_dagster.units import counted, number

_HEADINGS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "method": ("", str),
    "gigaflops_per_step": ("GFLOPs/step", number),
    "peak_memory_gib": ("GiB", "{:.3g}".format),
    "measured_memory_gib": ("measured GiB", "{:.3g}".format),
    "memory_multiplier": ("× memory", "{:.4f}".format),
    "mafs_per_step": ("MAFs/step", number),
    "steps_per_stage": ("steps", "{:,}".format),
    "samples_per_stage": ("samples", "{:,}".format),
}


@dataclass(frozen=True)
class Bought:
    """What a budget buys an experiment's method and others, a row each as of `budget_row`."""

    experiment: str
    total: float | None
    """Memory-adjusted GFLOPs of all stages; None where nobody knows how many steps there are."""
    stages: int
    rows: pl.DataFrame

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "experiment": self.experiment, "mafs": self.total, "stages": self.stages,
            "methods": self.rows.to_dicts(),
        }  # fmt: skip


def bought(
    name_or_path: str, overrides: Sequence[str], beside: Sequence[str], stages: int | None
) -> Bought:
    """The method of an experiment, full fine-tuning, and what is asked for beside them.

    beside: KEY=VALUE, which changes this experiment; or the name of another experiment or sweep,
    with its own model and settings. stages: how many, where the stream has another number. All
    share one total: that of `budget.mafs`, or what the steps of this experiment come to.

    Raises `InputError` for what cannot be counted or paid for, and where there are no stages.
    """
    project, home = project_folder(), Home.from_environment()

    def loaded_of(name: str, *changes: str) -> tuple[Loaded, ...]:
        return load_experiment_set(name, project, changes).members

    one = load_experiment_set(name_or_path, project, overrides).only()
    experiment = one.experiment
    nodes = build_graph([one]).of(experiment.name)
    stages = stages or max((n.stage for n in nodes if isinstance(n, TrainedNode)), default=0)
    if not stages:
        raise InputError(f"{experiment.name} has no stage to train: say for how many with --stages")
    own = _case(one, stages)
    cases = {experiment.name: own, "full fine-tuning": full_finetuning(own)}
    for other in beside:
        if "=" in other:
            (changed,) = loaded_of(name_or_path, *overrides, other)
            cases[other] = _case(changed, stages)
        else:
            cases |= {o.experiment.name: _case(o, stages) for o in loaded_of(other)}
    costs = {name: MemoryAdjusted.of(case, home.cache) for name, case in cases.items()}
    total = experiment.budget.mafs
    if total is not None:
        costs[experiment.name].steps(total, stages)  # raises where it buys none
    else:
        steps = experiment.budget.known_steps(experiment.batch_size)
        total = None if steps is None else costs[experiment.name].mafs(steps) * stages
    rows = [budget_row(n, case, costs[n], total, stages) for n, case in cases.items()]
    return Bought(experiment.name, total, stages, pl.DataFrame(rows, infer_schema_length=None))


def _case(loaded: Loaded, stages: int) -> CostCase:
    experiment = loaded.experiment
    return case_of(
        described(located(experiment.backbone, loaded.base)).architecture, experiment,
        experiment.method, experiment.mixture, stages, experiment.selection,
    )  # fmt: skip


def print_bought(found: Bought, console: Console | None = None) -> None:
    """A line for each method; a column where any of them has something to say."""
    console = console or Terminal()
    buys = (
        ""
        if found.total is None
        else f": {number(found.total)} MAFs over {counted(found.stages, 'stage')}"
    )
    table = Table(
        title=f"{found.experiment}{buys}",
        title_justify="left", title_style="bold", header_style="bold", box=None,
    )  # fmt: skip
    columns = [c for c in found.rows.columns if found.rows[c].null_count() < found.rows.height]
    for column in columns:
        heading, _ = _HEADINGS[column]
        left = column == "method"
        table.add_column(
            heading, justify="left" if left else "right", overflow="fold" if left else "ellipsis"
        )
    for row in found.rows.select(columns).rows(named=True):
        told = (_HEADINGS[c][1](value) if value is not None else "" for c, value in row.items())
        table.add_row(*map(cell, told))
    print_table(table, console)
    if found.total is None:
        say(
            console,
            "How many steps a stage has depends on its samples: --set 'budget={mafs: 1.8e9}' "
            "says what a budget buys.",
        )
    else:
        say(console, "steps and samples: of a stage; MAFs: GFLOPs × memory")
