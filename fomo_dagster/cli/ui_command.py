"""`fomo ui`: Dagster's UI, of the project or of some of its experiments."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fomo_dagster.home import Home, project_folder


def ui(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="Show these alone: experiments, sweeps, comparisons, galleries."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve Dagster's UI, with the project's assets, schedules and sensors.

    Dagster takes minutes to show 20,000 assets: name the experiments that you work on.
    """
    from fomo_dagster.cli.dagster_home import prepare, serve
    from fomo_dagster.cli.planning import shown_in_ui
    from fomo_dagster.cli.ports import check_is_free, is_open_to_others

    check_is_free(host, port)
    if is_open_to_others(host):
        logging.getLogger(__name__).warning(
            "Dagster's UI asks nobody who they are: whoever reaches %s:%d can start and stop runs",
            host, port,
        )  # fmt: skip
    shown = shown_in_ui(experiments or ())
    home = Home.from_environment()
    prepare(home)
    serve(home, project_folder(), shown, host, port)
