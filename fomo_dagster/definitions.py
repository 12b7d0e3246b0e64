"""What Dagster loads: the definitions of every experiment in the project."""

from __future__ import annotations

import gc
import logging
import os

import dagster as dg

from fomo_dagster.cli.packages import check_packages
from fomo_dagster.cli.planning import say_troubles, say_unread
from fomo_dagster.collecting import uncollected
from fomo_dagster.descriptors import raise_limit
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.home import SHOWN, Home, project_folder
from fomo_dagster.trackers.choosing import named_by_environment

logger = logging.getLogger(__name__)
MANY = 5_000  # assets, for which a person waits half a minute


@uncollected()
def load() -> dg.Definitions:
    """The project's definitions; what is wrong with an experiment is shown in its place."""
    check_packages()
    from assets.building import build_definitions
    from fomo_dagster.cli.running import COMMANDS
    from resources.dagster_internals import define_in_linear_time
    from resources.run_contexts import RunContexts

    if (too_few := raise_limit()) is not None:
        logger.warning(too_few)
    if "DAGSTER_HOME" not in os.environ:
        logger.warning(
            "DAGSTER_HOME is not set: what is made is kept, but the UI will not know of this run. "
            "To change that: export DAGSTER_HOME=$(fomo dagster-home)"
        )
    run_contexts = RunContexts.of(Home.from_environment(), named_by_environment())
    project = project_folder()
    graph = build_project(project)
    if not graph.experiments and not graph.troubles:
        logger.warning(
            "%s has no experiments, so there are no assets: `fomo init` writes a first one",
            project / "experiments",
        )
    named = list(filter(None, os.environ.get(SHOWN, "").split(",")))
    shown = [load_named(name, project) for name in named]
    if not shown and len(graph.nodes) > MANY:
        logger.warning(
            "%s assets: Dagster takes some 7 ms for each until it shows them; to see fewer, name "
            "experiments, as in `fomo ui %s`", f"{len(graph.nodes):,}", min(graph.experiments),
        )  # fmt: skip
    say_unread(graph)
    say_troubles(graph)
    define_in_linear_time()
    definitions = build_definitions(graph, run_contexts, COMMANDS, shown)
    definitions.get_repository_def()  # while no garbage is collected; Dagster asks next
    return definitions


defs = load()
gc.freeze()  # it stays, so nothing looks through it for garbage again
