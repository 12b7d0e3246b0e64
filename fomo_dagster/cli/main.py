"""`fomo` and its commands."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson, datasets_app
from fomo_dagster.cli.endings import ending_of
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
from fomo_dagster.cli.project_commands import doctor, init
from fomo_dagster.cli.query_commands import AsCsv, results, sql
from fomo_dagster.descriptors import raise_limit
from fomo_dagster.home import Home, project_folder

if TYPE_CHECKING:
    from fomo_dagster.cli.run_view import RunView

app = typer.Typer(
    help="Keep CLIP-like models up to date. EXPERIMENT is the name of a file in experiments/, or "
    "a path to one; SWEEP/NAME is one experiment of a sweep. What is made goes "
    "to FOMO_HOME (.fomo/ by default).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(init)
app.command()(doctor)
app.add_typer(datasets_app, name="datasets")
Experiment = Annotated[str, typer.Argument(help="An experiment's name, or a path to its file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the file; may be repeated."),
]

AsEvents = Annotated[
    bool, typer.Option("--json", help="Print what happens as events, a JSON object a line.")
]


@app.command()
def run(experiment: Experiment, overrides: Overrides = None, as_json: AsEvents = False) -> None:
    """Compute what is missing or out of date, and print the scores.

    Ctrl-C stops at a resume point; the same command continues from there. A sweep runs its
    experiments one after the other. The exit status is not 0 if anything failed.
    """
    if as_json:
        from fomo_dagster.cli.run_events import EventsView

        with EventsView(experiment, overrides or []) as view:
            _run(experiment, overrides or [], view)
    else:
        _run(experiment, overrides or [], None)


def _run(experiment: str, overrides: Sequence[str], view: RunView | None) -> None:
    check_packages()
    from fomo_dagster.cli.running import run_experiment

    run_experiment(experiment, overrides, view=view)


@app.command()
def plan(experiment: Experiment, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Say what `run` would compute, why, and for how long; compute nothing."""
    from fomo_dagster.cli.planning import plan_as_data, print_plan, resolve_request

    request = resolve_request(experiment, overrides or [])
    planned = request.plan()
    if as_json:
        print_json(plan_as_data(planned))
    else:
        print_plan(planned, request.experiment_set)
    request.check_whole()


@app.command()
def schedule(
    experiment: Experiment,
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of a stage; by default as many as the budget says."),
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=1, help="How many; by default as many as the stream has.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw them into this file, too.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the learning rate over all stages; with --json or --csv, that of each step."""
    from fomo_dagster.cli.planning import say_troubles_of_project
    from fomo_dagster.cli.schedules import print_rates, rates_of
    from fomo_dagster.store.files import write_bytes

    name, rates = rates_of(experiment, overrides or [], steps, stages)
    say_troubles_of_project()
    if plot is not None:
        from fomo_dagster.plots.schedule import learning_rate_plot

        write_bytes(plot, learning_rate_plot(rates, name))
    if as_json:
        print_json(rates.to_dicts())
    elif as_csv:
        print_csv(rates)
    else:
        print_rates(name, rates)


@app.command()
def budget(
    experiment: Experiment,
    overrides: Overrides = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|EXPERIMENT",
            help="Another row: this experiment with a value changed, as in "
            "'method={name: lora, rank: 4}', or another experiment; may be repeated.",
        ),
    ] = None,
    stages: Annotated[
        int | None, typer.Option(min=1, help="How many; by default as many as the stream has.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print what a step costs in memory-adjusted FLOPs, and how many steps a budget buys.

    Nothing is trained, and no accelerator is needed. The budget is the experiment's, or what its
    steps come to; --set 'budget={mafs: 1.8e9}' tries another.
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


app.command()(results)
app.command()(sql)


@app.command()
def export(
    experiment: Experiment,
    path: Annotated[Path, typer.Argument(help="The file to write: .pt or .safetensors.")],
    stage: Annotated[
        int | None, typer.Option(min=0, help="The stage whose weights; the last by default.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write deployed weights as a file that OpenCLIP loads.

    `open_clip.create_model(architecture, pretrained=PATH)`. Where the architecture is the project's
    own configuration, it is written beside the weights as .json, for `open_clip.add_model_config`.
    """
    from fomo_dagster.cli.exporting import export_weights

    written = export_weights(experiment, overrides or [], stage, path)
    say(Terminal(stderr=True), written)


@app.command()
def merge(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write: .pt or .safetensors.")
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Weights to merge, oldest first: .pt or .safetensors."
        ),
    ],
    technique: Annotated[
        str,
        typer.Option(
            help="interpolation, weighted_mean, slerp, karcher; and, over the changes from θ₀: "
            "model_stock, task_arithmetic, ties, dare, dare_ties, della, della_ties, breadcrumbs, "
            "breadcrumbs_ties, magmax, consensus, sce, random."
        ),
    ],
    base: Annotated[
        Path | None, typer.Option(help="θ₀, which the files were trained from: its weights.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter; may be repeated."),
    ] = None,
) -> None:
    """Merge weights of OpenCLIP models into one file, tensor by tensor.

    Techniques and their parameters are in docs/merging.md. For example:

    fomo merge merged.pt january.pt may.pt --base openai.pt --technique ties --set density=0.3
    """
    from fomo_dagster.cli.merging import declared_technique, merge_files

    told = merge_files(output, files, base, declared_technique(technique, settings or []))
    say(Terminal(stderr=True), told)


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Datasets of FoMo-in-Flux, by any of their names."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are not here yet.")] = False,
) -> None:
    """Download datasets of FoMo-in-Flux from its release's list.

    The list is that of FOMO_RELEASE, a copy of the release's repository; the archives go to
    FOMO_RELEASE_IMAGES, by default its folder data/. Ctrl-C stops; the same command goes on from
    there. What is here is left as it is.
    """
    from fomo_dagster.cli.fetching import fetch_datasets

    fetch_datasets(names or [], everything=everything, console=Terminal())


@app.command()
def schema(
    path: Annotated[Path | None, typer.Argument(help="The file to write; none: print it.")] = None,
) -> None:
    """Give the JSON schema of the experiment file, so that editors complete it."""
    from fomo_dagster.experiment.loading import json_schema
    from fomo_dagster.store.files import write_bytes

    text = json.dumps(json_schema(), indent=1) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        write_bytes(path, text.encode())


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Open Dagster's UI on this machine, with the project's assets, schedules and sensors."""
    from fomo_dagster.cli.dagster_home import prepare, serve
    from fomo_dagster.cli.ports import check_is_free, is_open_to_others

    check_is_free(host, port)
    if is_open_to_others(host):
        logging.getLogger(__name__).warning(
            "Dagster's UI asks nobody who they are: whoever reaches %s:%d can start and stop runs",
            host, port,
        )  # fmt: skip
    home = Home.from_environment()
    prepare(home)
    serve(home, project_folder(), host, port)


@app.command()
def dagster_home() -> None:
    """Print the folder for Dagster's own commands, made where it is not there.

    export DAGSTER_HOME=$(fomo dagster-home)
    """
    from fomo_dagster.cli.dagster_home import prepare

    home = Home.from_environment()
    prepare(home)
    print_data(f"{home.dagster}\n")


def main() -> None:
    """The entry point: a deliberate error is a sentence and a status, never a traceback."""
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
