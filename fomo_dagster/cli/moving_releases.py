"""What follows a release name that moved: it is told, to Dagster too, and its files are written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.cli.planning import say_troubles, warn_once
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.nodes.release_files import summary_of
from fomo_dagster.graph.run.released import write_files
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tracking import registering
from fomo_dagster.home import Home, project_folder
from fomo_dagster.progress import Callbacks
from fomo_dagster.releases.files import FILES
from fomo_dagster.releases.history import licences_said, sentence_of
from fomo_dagster.releases.records import Record, ReleaseLog

if TYPE_CHECKING:
    import dagster as dg


Register: TypeAlias = Callable[[str], None]
"""Has the registries of models told of a release name."""


def registries() -> AbstractContextManager[Register]:
    """As of `registering`, of the home."""
    return registering(Home.from_environment(), warn_once)


def told(record: Record, register: Register) -> None:
    """Say what happened."""
    home = Home.from_environment()
    register(record.name)
    if _has_dagster(home):
        from assets.releasing import shown_now

        _tell_dagster(home, shown_now(home, record.name))
    say(Terminal(), sentence_of(record))


def moved(record: Record, register: Register, name_or_path: str | None = None) -> None:
    """Say what happened and what licences ask, and write the files of what is live.

    name_or_path: the experiment that the command is about. Raises as `write_files`.
    """
    told(record, register)
    home, project = Home.from_environment(), project_folder()
    for sentence in licences_said(ReleaseLog(home, record.name).read()):
        say(Terminal(), f"Note: {sentence}.")
    loaded = None if name_or_path is None else load_experiment_set(name_or_path, project, ())
    graph = build_project(project, loaded)
    say_troubles(graph)
    with Bars(Terminal(stderr=True)) as bars:
        callbacks = Callbacks(progress=bars, warn=warn_once, waiting=_waiting)
        context = RunContext(graph, home, callbacks=callbacks)
        outcome = write_files(record, context)
    if outcome is None:
        return
    if _has_dagster(home):
        from assets.releasing import files_now

        _tell_dagster(home, files_now(outcome, context))
    for artifact in outcome.artifacts.values():
        say(Terminal(), f"its files are in {artifact.folder / FILES}")
        for line in summary_of(artifact)["said"]:
            say(Terminal(), f"  {line}")


def _waiting(what: str) -> None:
    say(Terminal(stderr=True), f"waiting for {what}")


def _has_dagster(home: Home) -> bool:
    return (home.dagster / "dagster.yaml").exists()


def _tell_dagster(home: Home, event: dg.AssetMaterialization) -> None:
    from fomo_dagster.cli.dagster_home import prepare

    instance: Any = prepare(home)
    instance.report_runless_asset_event(event)
