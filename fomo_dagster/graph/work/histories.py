"""The histories of release names, as a plan or a step looks at them."""

from __future__ import annotations

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.releases.records import History, ReleaseLog


def history_of(name: str, context: NodeContext) -> History:
    """What happened to a release name, read once: a plan asks for every stage, and what it says
    must be of one moment."""
    log = ReleaseLog(context.home, name)
    return context.once(("history", name), log.read)
