"""Writes the files of what is live at once, after a release name was moved."""

from __future__ import annotations

from fomo_dagster.errors import FomoError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.keys import release_files_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.releases.records import Record


def write_files(record: Record, context: RunContext) -> Outcome | None:
    """Write what is live since that record in the forms that are asked for; None where none are.

    context: of the whole project. Raises as writing does, naming what stays live: nothing of the
    record is undone, and the next run of an experiment of that name writes what is missing.
    """
    key = release_files_key(record.name)
    if key not in context.graph.nodes:
        return None
    try:
        return materialise(key, context)
    except FomoError as error:
        names = sorted(_experiments(record.name, context.graph))
        raise type(error)(
            f"release {record.live} is live as {record.name}, but its files are not written: "
            f"{error}. `fomo run {names[0]}` tries again"
        ) from error


def _experiments(name: str, graph: Graph) -> list[str]:
    """Those of a release name that ask for forms."""
    return [
        one.name
        for one in graph.experiments.values()
        if one.release is not None and one.release.name == name and one.release.forms
    ]
