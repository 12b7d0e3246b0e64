"""What Dagster loads: the definitions of every experiment in the project."""

from __future__ import annotations

import logging
import os

import dagster as dg

from assets.building import build_definitions
from fomo_dagster.cli.planning import say_troubles, say_unread
from fomo_dagster.cli.running import compute_arrivals
from fomo_dagster.descriptors import raise_limit
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.home import Home, project_folder
from fomo_dagster.trackers.choosing import named_by_environment
from resources.run_contexts import RunContexts

logger = logging.getLogger(__name__)


def load() -> dg.Definitions:
    """The project's definitions; what is wrong with an experiment is shown in its place."""
    if (too_few := raise_limit()) is not None:
        logger.warning(too_few)
    if "DAGSTER_HOME" not in os.environ:
        logger.warning(
            "DAGSTER_HOME is not set: what is made is kept, but the UI will not know of this run. "
            "To change that: export DAGSTER_HOME=$(fomo dagster-home)"
        )
    run_contexts = RunContexts.of(Home.from_environment(), named_by_environment())
    graph = build_project(project_folder())
    say_unread(graph)
    say_troubles(graph)
    return build_definitions(graph, run_contexts, compute_arrivals)


defs = load()
