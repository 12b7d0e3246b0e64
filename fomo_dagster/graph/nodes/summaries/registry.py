"""All kinds of summaries: those that the files of this room declare."""

from fomo_dagster.found import found_in
from fomo_dagster.graph.nodes import summaries as room
from fomo_dagster.graph.nodes.summaries.summary import Summary

SUMMARIES = tuple(found_in(room, Summary))  # type: ignore[type-abstract]
