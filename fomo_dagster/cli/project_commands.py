"""`fomo init` and `fomo doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The project's folder; this one by default.")
    ] = Path(),
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your images: a folder with a folder per class, or a table (CSV, Parquet, JSON "
            "lines) of paths and classes. The first experiment is about them.",
        ),
    ] = None,
) -> None:
    """Lay out a project with a first experiment, and overwrite nothing.

    With --images it looks at them, says what it found, and declares them as a dataset.
    """
    from fomo_dagster.cli.initialising import lay_out

    lay_out(folder, images, Terminal())


def doctor(as_json: AsJson = False) -> None:
    """Say what is there: versions, devices, project, store, disk, limits; and what to change.

    The exit status is 1 where there is a problem; notes are none.
    """
    from fomo_dagster.cli.doctor import as_data, examine, print_findings

    findings = examine()
    if as_json:
        print_json(as_data(findings))
    else:
        print_findings(findings, Terminal())
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)
