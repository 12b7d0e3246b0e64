"""`fomo datasets` and its commands."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fomo_dagster.cli.output import Terminal, line, print_json
from fomo_dagster.home import Home, project_folder

logger = logging.getLogger(__name__)

datasets_app = typer.Typer(invoke_without_command=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@datasets_app.callback()
def datasets(
    context: typer.Context,
    as_json: AsJson = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Check only that archives are there, not what is in them."),
    ] = False,
) -> None:
    """List the datasets that experiments can name, and whether their images are here.

    Those of the project come first, then those that ship with this package, then the 63 of
    FoMo-in-Flux. Their images are compared with the benchmark's lists by name, so the first look at
    a large tar takes a while.
    """
    from fomo_dagster.cli.datasets import known_datasets, looked_through, print_datasets
    from fomo_dagster.cli.planning import say_troubles_of_project
    from fomo_dagster.experiment.unread import unread_files

    if context.invoked_subcommand is not None:
        return
    home = Home.from_environment()
    known = list(known_datasets(project_folder(), home).values())
    if not quick:
        with Terminal(stderr=True).status("looking for images") as status:
            for number, one in enumerate(known):
                status.update(line(f"looking for the images of {one.name}"))
                known[number] = looked_through(one, home)
    for sentence in unread_files(project_folder(), ((one.dataset, one.base) for one in known)):
        logger.warning(sentence)
    if as_json:
        print_json([one.as_data() for one in known])
    else:
        print_datasets(known, Terminal())
    say_troubles_of_project()


@datasets_app.command("show")
def datasets_show(
    name: Annotated[str, typer.Argument(help="The dataset's name, or another of the benchmark's.")],
    as_json: AsJson = False,
) -> None:
    """Show everything about a dataset, before anything of it is stored.

    It counts images by split and class, and shows sizes, captions, odd images, duplicates and a
    contact sheet. Of a large dataset it looks at 2,000 images spread over it, for 20 seconds at
    most, and says how many. The exit status is 1 if its images cannot be read, or the project
    declares them and they are not here.
    """
    from fomo_dagster.cli.dataset_details import look_into, print_dataset
    from fomo_dagster.cli.datasets import find_known, known_datasets, looked_through

    home = Home.from_environment()
    project = project_folder()
    one = looked_through(find_known(name, known_datasets(project, home), project), home)
    if as_json:
        content = look_into(one, home)
        found = None if content.survey is None else content.survey.as_data()
        print_json(one.as_data() | {"content": found, "remarks": content.remarks})
        if content.error is not None:
            raise content.error
    else:
        print_dataset(one, home, Terminal())
