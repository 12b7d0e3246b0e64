"""`fomo promote`, `fomo rollback`, `fomo alias` and `fomo releases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json, say
from fomo_dagster.cli.weights_commands import Experiment
from fomo_dagster.home import Home

if TYPE_CHECKING:
    from fomo_dagster.releases.records import Record

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
    be live.
    """
    from fomo_dagster.cli.planning import say_troubles_of_project
    from fomo_dagster.graph.run.promotion import promote_stage

    record = promote_stage(experiment, stage, first=first, reason=reason)
    say_troubles_of_project()
    _told(record)


def rollback(
    name: Name,
    to: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="The release; by default the one before."),
    ] = None,
    reason: Reason = "",
) -> None:
    """Put an earlier release live again."""
    from fomo_dagster.cli.releases import log_of
    from fomo_dagster.releases.promoting import roll_back

    log = log_of(Home.from_environment(), name)
    _told(roll_back(log, to, reason=reason))


def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as `stable`.")],
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The release.")],
    move: Annotated[
        bool, typer.Option("--move", help="Take it from the release that has it.")
    ] = False,
) -> None:
    """Give a release a name beside `live` and `previous`, which follow by themselves."""
    from fomo_dagster.cli.releases import log_of
    from fomo_dagster.releases.promoting import give_alias

    log = log_of(Home.from_environment(), name)
    _told(give_alias(log, alias, number, move=move))


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
    as_json: AsJson = False,
) -> None:
    """Show what was live when, and why the others were refused."""
    from fomo_dagster.cli.releases import as_data, log_of, print_history, print_names
    from fomo_dagster.errors import InputError
    from fomo_dagster.releases.records import ReleaseLog, names_of

    home = Home.from_environment()
    if name is None:
        if join:
            raise InputError("--join is about one release name: name it")
        if as_json:
            print_json([as_data(ReleaseLog(home, one).read()) for one in names_of(home)])
        else:
            print_names(home, Terminal())
        return
    if join:
        say(Terminal(stderr=True), f"joined what {ReleaseLog(home, name).join()} began")
    history = log_of(home, name).read()
    if as_json:
        print_json(as_data(history))
    else:
        print_history(history, Terminal())


def _told(record: Record) -> None:
    """Say what happened, to Dagster too where there is one."""
    from fomo_dagster.releases.history import sentence_of

    home = Home.from_environment()
    if (home.dagster / "dagster.yaml").exists():
        from assets.releasing import shown_now
        from fomo_dagster.cli.dagster_home import prepare

        prepare(home).report_runless_asset_event(shown_now(home, record.name))
    say(Terminal(), sentence_of(record))
