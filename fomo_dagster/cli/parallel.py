"""`--parallel`: on how many slots assets go on side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from fomo_dagster.errors import InputError

if TYPE_CHECKING:
    from fomo_dagster.graph.build.graph import Graph
    from fomo_dagster.graph.run.plan import Planned

PARALLEL = "--parallel"


def default_slots() -> int:
    """One for each device that there is."""
    from fomo_dagster.graph.run.executors import open_cluster

    return open_cluster().slots


def refusals(planned: Sequence[Planned], graph: Graph) -> list[str]:
    """What `fomo run` would say that is missing; a cluster that does not answer is a reason too."""
    from fomo_dagster.graph.run.executors import open_cluster
    from fomo_dagster.graph.run.missing_devices import missing_devices

    if not any(entry.compute for entry in planned):
        return []
    try:
        return missing_devices(planned, graph, open_cluster())
    except InputError as error:
        return [str(error)]


def slots_of(text: str) -> int:
    """The value of `--parallel`."""
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(
            f"{text!r} is no number of slots: give a whole number from 1 on, or write {PARALLEL} "
            "last, without a number, for all devices here"
        )
    return int(text)


class WithParallel(TyperCommand):
    """A command whose `--parallel` may stand without a value, for which typer has no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives the option its default where another option or nothing follows it."""
        options = args[: args.index("--")] if "--" in args else args
        places = [place for place, text in enumerate(options) if text == PARALLEL]
        for place in reversed(places):
            following = args[place + 1] if place + 1 < len(args) else "--"
            if following.startswith("-") and not following[1:].isdecimal():
                args = [*args[: place + 1], str(default_slots()), *args[place + 1 :]]
        return super().parse_args(ctx, args)


Parallel = Annotated[
    int | None,
    typer.Option(
        PARALLEL,
        metavar="[N]",
        parser=slots_of,
        help="How long it takes on N slots, by default one for each device here.",
    ),
]
