"""`fomo promote`, `fomo rollback`, `fomo alias` and `fomo releases`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json, say
from fomo_dagster.cli.weights_commands import Experiment
from fomo_dagster.home import Home

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name that is live: `release.name` of a file.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")]


def promote(
    experiment: Experiment,
    stage: Annotated[
        int | None, typer.Option(min=0, help="The stage; by default the last one.")
    ] = None,
    first: Annotated[
        bool,
        typer.Option(
            "--first", help="Nothing is live yet: gates that compare with it do not count."
        ),
    ] = False,
    reason: Reason = "",
) -> None:
    """Put a stage live, if it passes the gates.

    It is the next release under the experiment's `release.name`. What it is held against must still
    be live. The forms of `release.forms` are written at once; if that fails, the stage stays live,
    and the exit status is not 0.
    """
    from fomo_dagster.cli.moving_releases import moved, registries
    from fomo_dagster.graph.run.promotion import promote_stage

    with registries() as register:
        moved(promote_stage(experiment, stage, first=first, reason=reason), register, experiment)


def rollback(
    name: Name,
    to: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="The release; by default the one before."),
    ] = None,
    reason: Reason = "",
) -> None:
    """Put an earlier release live again, and write its files if they are no longer there."""
    from fomo_dagster.cli.moving_releases import moved, registries
    from fomo_dagster.cli.releases import log_of
    from fomo_dagster.releases.promoting import roll_back

    log = log_of(Home.from_environment(), name)
    with registries() as register:
        moved(roll_back(log, to, reason=reason), register)


def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as `stable`.")],
    number: Annotated[
        int | None,
        typer.Argument(metavar="NUMBER", min=1, help="The release.", show_default=False),
    ] = None,
    move: Annotated[
        bool, typer.Option("--move", help="Take it from the release that has it.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take it from the release that has it, for good.")
    ] = False,
) -> None:
    """Give a release a name beside `live` and `previous`, which follow by themselves.

    `fomo alias NAME ALIAS --remove` takes it away again.
    """
    from fomo_dagster.cli.galleries import say_left_by
    from fomo_dagster.cli.moving_releases import registries, told
    from fomo_dagster.cli.releases import log_of
    from fomo_dagster.errors import InputError
    from fomo_dagster.releases.promoting import give_alias, remove_alias

    if remove and (move or number is not None):
        raise InputError("--remove takes the alias from whatever has it: give no NUMBER or --move")
    home = Home.from_environment()
    log = log_of(home, name)
    if number is None and not remove:
        raise InputError(f"which release is to be {alias}? Give its NUMBER, or --remove")
    with registries() as register:
        if number is None:
            told(remove_alias(log, alias), register)
            say_left_by(log.name, alias, home, Terminal())
        else:
            told(give_alias(log, alias, number, move=move), register)


def releases(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A release name; by default all, a line each."),
    ] = None,
    join: Annotated[
        bool,
        typer.Option(
            "--join", help="Take part in what another home began on the shared store (FOMO_STORE)."
        ),
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Copy the files of what is live into this new folder instead; or write its "
            "weights for OpenCLIP into a file, .safetensors or .pt.",
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="For --files: of this release."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was live when, and why the others were refused.

    `fomo releases NAME --files FOLDER` copies the forms that `release.forms` asks for; with
    --files model.safetensors any release can be had.
    """
    from fomo_dagster.cli.releases import as_data, copy_files, log_of, print_history, print_names
    from fomo_dagster.errors import InputError
    from fomo_dagster.experiment.backbone import WEIGHTS_SUFFIXES
    from fomo_dagster.releases.records import ReleaseLog, names_of

    home = Home.from_environment()
    if number is not None and files is None:
        raise InputError("--number says whose files to copy: give --files PATH with it")
    if name is None:
        for option in [*(["--join"] if join else []), *(["--files"] if files is not None else [])]:
            raise InputError(f"{option} is about one release name: name it")
        if as_json:
            print_json([as_data(ReleaseLog(home, one).read()) for one in names_of(home)])
        else:
            print_names(home, Terminal())
        return
    if join:
        say(Terminal(stderr=True), f"joined what {ReleaseLog(home, name).join()} began")
    history = log_of(home, name).read()
    if files is not None and files.suffix in WEIGHTS_SUFFIXES:
        from fomo_dagster.cli.exporting import export_release

        for line in export_release(home, history, number, files):
            say(Terminal(stderr=True), line)
        return
    if files is not None:
        say(Terminal(stderr=True), copy_files(home, history, number, files))
        return
    if as_json:
        print_json(as_data(history))
    else:
        print_history(history, Terminal())
