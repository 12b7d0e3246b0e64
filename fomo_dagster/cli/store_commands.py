"""`fomo store` and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json
from fomo_dagster.home import Home

store_app = typer.Typer(invoke_without_command=True)


@store_app.callback()
def store(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what takes how much of FOMO_HOME: by kind, by experiment, by release.

    What nothing needs is what `fomo store clean` removes.
    """
    from fomo_dagster.cli.store_view import checked_home, print_usage
    from fomo_dagster.store.usage import usage

    if context.invoked_subcommand is not None:
        return
    home = checked_home(Home.from_environment())
    found = usage(home.root, home.store)
    if as_json:
        print_json(found.as_data())
    else:
        print_usage(found, home, Terminal())


@store_app.command("clean")
def store_clean(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Keep the weights of these experiments or sweeps alone; can be repeated. `*` in a "
            "name stands for anything.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; else it is only said what would go.")
    ] = False,
    forget: Annotated[
        str | None,
        typer.Option(
            metavar="HOME", help="Have a home that is gone need nothing on the remote store."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove artifacts that nothing needs, or say which these are.

    What an asset, a release, a resume point, a running process or another home needs always stays.
    With `--keep`, the weights of all other experiments go as well; their scores, predictions and
    tables stay. What was cleaned and is needed again is computed again.
    """
    from fomo_dagster.cli.store_view import (
        as_data,
        checked_home,
        forget_home,
        given_up,
        print_cleaning,
        waiting,
    )
    from fomo_dagster.store.cleaning import clean, what_goes

    home, console = checked_home(Home.from_environment()), Terminal()
    if forget is not None:
        forget_home(forget, home, console)
    gives_up = given_up(keep or [], home)
    if yes:
        found = clean(home.root, home.store, gives_up, waiting=waiting)
    else:
        found = what_goes(home.root, home.store, gives_up)
    if as_json:
        print_json(as_data(found, is_done=yes))
    else:
        print_cleaning(found, console, is_done=yes)


@store_app.command("push")
def store_push(as_json: AsJson = False) -> None:
    """Copy to the remote store what was made here before FOMO_STORE was set.

    That is what an asset, a release or a resume point needs. What is made while FOMO_STORE is set
    is copied at once.
    """
    from fomo_dagster.cli.store_view import checked_home, print_pushed
    from fomo_dagster.store.pushing import push_needed

    home, console = checked_home(Home.from_environment()), Terminal()
    with Bars(Terminal(stderr=True)) as bars:
        found = push_needed(home.root, home.store, bars)
    if as_json:
        print_json(found._asdict())
    else:
        print_pushed(found, console)
