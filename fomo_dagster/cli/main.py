"""`fomo` and its commands."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fomo_dagster.cli.datasets_commands import AsJson, datasets_app
from fomo_dagster.cli.endings import ending_of
from fomo_dagster.cli.inspections import inspect
from fomo_dagster.cli.label_command import label
from fomo_dagster.cli.law_commands import fit, target
from fomo_dagster.cli.near_duplicates import duplicates
from fomo_dagster.cli.output import (
    Terminal,
    prepare_streams,
    print_csv,
    print_data,
    print_json,
    say,
    until_nobody_reads,
)
from fomo_dagster.cli.packages import check_packages
from fomo_dagster.cli.parallel import Parallel, WithParallel
from fomo_dagster.cli.project_commands import doctor, init, only_experiment, say_version
from fomo_dagster.cli.query_commands import AsCsv, compare, errors, report, results, sql
from fomo_dagster.cli.release_commands import alias, promote, releases, rollback
from fomo_dagster.cli.search_command import search
from fomo_dagster.cli.serving_commands import serve
from fomo_dagster.cli.store_commands import store_app
from fomo_dagster.cli.ui_command import ui
from fomo_dagster.cli.weights_commands import Experiment, Overrides, export, merge
from fomo_dagster.collecting import uncollected
from fomo_dagster.descriptors import raise_limit
from fomo_dagster.home import Home, project_folder

if TYPE_CHECKING:
    from fomo_dagster.cli.run_view import RunView

START = "Start a project"
RUN = "Plan and run experiments"
LOOK = "Look at results"
LIVE = "Put weights live"
WEIGHTS = "Take weights elsewhere"
STORE = "Keep the disk free"
OTHERS = "For other programs"


class InOrder(TyperGroup):
    """Commands in the order in which one needs them, which is that of `ORDER`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All, those that `ORDER` has first."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        """As of any group, without what pydantic puts before the reason that a value is wrong."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


ORDER = (
    "init", "doctor", "datasets", "fetch", "budget", "schedule", "plan", "run", "ui", "results",
    "compare", "fit", "target", "report", "errors", "duplicates", "inspect", "label", "sql",
    "releases", "promote", "rollback", "alias", "search", "serve", "export", "merge", "store",
    "schema", "dagster-home",
)  # fmt: skip
app = typer.Typer(
    cls=InOrder,
    help="Keep CLIP-like models up to date.\n\n"
    "EXPERIMENT is the name of a file in experiments/, or a path to one. SWEEP/NAME is one "
    "experiment of a sweep, comparisons/NAME a comparison, and galleries/NAME a gallery. "
    "Everything that is made goes to FOMO_HOME, by default .fomo/ in the project.",
    epilog="To begin: `fomo init --images PATH`, `fomo plan NAME`, `fomo run NAME`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
app.command(rich_help_panel=START)(init)
app.command(rich_help_panel=START)(doctor)
app.add_typer(datasets_app, name="datasets", rich_help_panel=START)
app.add_typer(store_app, name="store", rich_help_panel=STORE)
ToRun = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment's name, a path to its file, or a comparison or gallery, as in "
        "comparisons/NAME; by default the experiment that the project has.",
        show_default=False,
    ),
]
AsEvents = Annotated[
    bool, typer.Option("--json", help="Print what happens as events, a JSON object a line.")
]


@app.callback()
def of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=say_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """What comes before any command."""


@app.command(rich_help_panel=RUN)
def run(
    experiment: ToRun = None,
    overrides: Overrides = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            help="The most devices to use at once; by default all that FOMO_DEVICES names, or that "
            "are there. Without accelerators: how many assets share the CPU."
        ),
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option(
            "--predictions", help="Evaluate again what was evaluated before predictions were kept."
        ),
    ] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Compute again the retained weights that were cleaned."),
    ] = False,
    as_json: AsEvents = False,
) -> None:
    """Compute what is missing or out of date, and print the scores, or the comparison.

    Ctrl-C stops at resume points; the same command continues from there. With several devices,
    whatever is ready is computed at once. The exit status is not 0 if anything failed.
    """
    name = experiment or only_experiment(project_folder())
    if predictions:
        from fomo_dagster.cli.prediction_errors import retire_evaluations

        retire_evaluations(name, overrides or [])
    if restore:
        from fomo_dagster.cli.restoring import restore_weights

        restore_weights(name, overrides or [])
    if as_json:
        from fomo_dagster.cli.run_events import EventsView

        with EventsView(name, overrides or []) as view:
            _run(name, overrides or [], view, parallel)
    else:
        _run(name, overrides or [], None, parallel)


def _run(
    experiment: str, overrides: Sequence[str], view: RunView | None, parallel: int | None
) -> None:
    check_packages()
    with uncollected():
        from fomo_dagster.cli.running import run_experiment

    run_experiment(experiment, overrides, view=view, parallel=parallel)


@app.command(rich_help_panel=RUN, cls=WithParallel)
@uncollected()
def plan(
    experiment: ToRun = None,
    overrides: Overrides = None,
    parallel: Parallel = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would compute, why, and for how long.

    A plan computes nothing. Its estimates come from what was computed on this machine before.
    """
    from fomo_dagster.cli.parallel import refusals
    from fomo_dagster.cli.planning import plan_as_data, print_plan, resolve_request, warn_once
    from fomo_dagster.cli.schedule_view import ScheduleView

    name = experiment or only_experiment(project_folder())
    request = resolve_request(name, overrides or [])
    planned, view = request.plan(), None
    for said in refusals(planned, request.graph):
        warn_once(f"{said}. `fomo run` refuses it")
    if parallel is not None:
        view = ScheduleView.of(request.nodes, planned, parallel)
    if as_json:
        data = plan_as_data(planned)
        print_json(data if view is None else data | {"parallel": view.as_data()})
    else:
        print_plan(planned, request.experiment_set)
        if view is not None:
            view.print()
    request.check_whole()


@app.command(rich_help_panel=RUN)
def schedule(
    experiment: Experiment,
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of a stage; by default what the budget buys."),
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=1, max=999, help="Number of stages; by default the stream's.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw them into this file.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the learning rate over all stages.

    `--json` and `--csv` print it for every step.
    """
    from fomo_dagster.cli.planning import say_troubles_of_project
    from fomo_dagster.cli.schedules import print_rates, rates_of
    from fomo_dagster.store.files import write_bytes

    name, rates = rates_of(experiment, overrides or [], steps, stages)
    say_troubles_of_project()
    if plot is not None:
        from fomo_dagster.plots.schedule import learning_rate_plot

        write_bytes(plot, learning_rate_plot(rates, name), named=True)
    if as_json:
        print_json(rates.to_dicts())
    elif as_csv:
        print_csv(rates)
    else:
        print_rates(name, rates)


@app.command(rich_help_panel=RUN)
def budget(
    experiment: Experiment,
    overrides: Overrides = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|EXPERIMENT",
            help="Add a row: this experiment with a value changed, such as "
            "'method={name: lora, rank: 4}', or another experiment; can be repeated.",
        ),
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=1, max=999, help="Number of stages; by default the stream's.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what a training step costs, and how many steps the budget buys.

    Costs are memory-adjusted FLOPs (MAFs), as in the benchmark. Nothing is trained, and no
    accelerator is needed. The budget is the experiment's, or what its steps come to; try another
    with `--set 'budget={mafs: 1.8e9}'`.
    """
    from fomo_dagster.cli.budgets import bought, print_bought
    from fomo_dagster.cli.planning import say_troubles_of_project

    found = bought(experiment, overrides or [], beside or [], stages)
    say_troubles_of_project()
    if as_json:
        print_json(found.as_data())
    elif as_csv:
        print_csv(found.rows)
    else:
        print_bought(found)


app.command(rich_help_panel=LOOK)(results)
app.command(rich_help_panel=LOOK)(compare)
app.command(rich_help_panel=LOOK)(fit)
app.command(rich_help_panel=LOOK)(target)
app.command(rich_help_panel=RUN)(ui)
app.command(rich_help_panel=LOOK)(report)
app.command(rich_help_panel=LOOK)(errors)
app.command(rich_help_panel=LOOK)(duplicates)
app.command(rich_help_panel=LOOK)(inspect)
app.command(rich_help_panel=LOOK)(label)
app.command(rich_help_panel=LOOK)(sql)
app.command(rich_help_panel=LIVE)(releases)
app.command(rich_help_panel=LIVE)(promote)
app.command(rich_help_panel=LIVE)(rollback)
app.command(rich_help_panel=LIVE)(alias)
app.command(rich_help_panel=LIVE)(search)
app.command(rich_help_panel=LIVE)(serve)
app.command(rich_help_panel=WEIGHTS)(export)
app.command(rich_help_panel=WEIGHTS)(merge)


@app.command(rich_help_panel=START)
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Datasets to download, by any of their names."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Download all that are not here yet.")
    ] = False,
) -> None:
    """Download datasets of FoMo-in-Flux.

    FOMO_RELEASE is a copy of the benchmark's repository, which lists the addresses. Archives go to
    FOMO_RELEASE_IMAGES, by default its folder data/; those that are there already stay as they are.
    Ctrl-C stops, and the same command continues from there.
    """
    from fomo_dagster.cli.fetching import fetch_datasets

    fetch_datasets(names or [], everything=everything, console=Terminal())


@app.command(rich_help_panel=OTHERS)
def schema(
    path: Annotated[
        Path | None, typer.Argument(help="The file to write; without it, the schema is printed.")
    ] = None,
    comparisons: Annotated[
        bool, typer.Option("--comparisons", help="That of comparison files instead.")
    ] = False,
    galleries: Annotated[
        bool, typer.Option("--galleries", help="That of gallery files instead.")
    ] = False,
) -> None:
    """Print the JSON schema of experiment files, from which editors complete keys."""
    from fomo_dagster.errors import InputError
    from fomo_dagster.experiment.comparison import comparison_schema
    from fomo_dagster.experiment.gallery import gallery_schema
    from fomo_dagster.experiment.json_schema import json_schema
    from fomo_dagster.store.files import write_bytes

    if comparisons and galleries:
        raise InputError("--comparisons and --galleries ask for several schemas: choose one")
    made = comparison_schema if comparisons else gallery_schema if galleries else json_schema
    text = json.dumps(made(), indent=1) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        write_bytes(path, text.encode(), named=True)


@app.command(rich_help_panel=OTHERS)
def dagster_home() -> None:
    """Print the folder in which Dagster keeps this project's runs.

    `export DAGSTER_HOME=$(fomo dagster-home)` sets up Dagster's own commands.
    """
    from fomo_dagster.cli.dagster_home import prepare

    home = Home.from_environment()
    prepare(home)
    print_data(f"{home.dagster}\n")


def main() -> None:
    """The entry point: a deliberate error is a sentence and a status, never a traceback."""
    atexit.register(gc.freeze)  # else Python takes a second to look through all that it drops
    prepare_streams()
    if (too_few := raise_limit()) is not None:
        logging.getLogger(__name__).warning(too_few)
    with until_nobody_reads():
        try:
            app()
        except Exception as error:
            ending = ending_of(error)
            if ending is None:
                raise
            label = {"failed": ("error:", "bold red"), "stopped": ("stopped:", "bold")}
            say(Terminal(stderr=True), label[ending.outcome], f" {ending.sentence}")
            sys.exit(ending.status)
