"""`fomo init` and `fomo doctor`, `fomo --version`, and the one experiment of a project."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_data, print_json
from fomo_dagster.cli.packages import OURS
from fomo_dagster.errors import InputError


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The project's folder; this one by default.")
    ] = Path(),
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your images: a folder with a folder for each class, or a table (CSV, Parquet, "
            "JSON lines) of paths and classes. The first experiment trains on them.",
        ),
    ] = None,
) -> None:
    """Lay out a project with a first experiment.

    With `--images`, it looks at your images, says what it found, and declares them as a dataset.
    Files that are there already are kept.
    """
    from fomo_dagster.cli.initialising import lay_out

    lay_out(folder, images, Terminal())


def doctor(as_json: AsJson = False) -> None:
    """Check the installation and the project, and say what to change.

    It looks at versions, devices, the project's files, the store, free disk and limits. The exit
    status is 1 if there is a problem; notes are none.
    """
    from fomo_dagster.cli.doctor import as_data, examine, print_findings

    findings = examine()
    if as_json:
        print_json(as_data(findings))
    else:
        print_findings(findings, Terminal())
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def say_version(asked: bool) -> None:
    """Print the version and end, where that is asked."""
    if asked:
        print_data(f"{OURS} {version(OURS)}\n")
        raise typer.Exit


def only_experiment(project: Path) -> str:
    """The one file that a project has in `experiments/`, by its name. Raises `InputError` where
    there are several, with their names, or none."""
    from fomo_dagster.experiment.files import experiment_files

    names = list(experiment_files(project))
    if len(names) == 1:
        return names[0]
    folder = project / "experiments"
    if not names:
        raise InputError(f"{folder} has no experiment: `fomo init` writes one, or name a preset")
    raise InputError(f"{folder} has {len(names)} experiments: name one of {', '.join(names)}")
