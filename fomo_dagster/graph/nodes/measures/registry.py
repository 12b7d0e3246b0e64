"""All kinds of measures: those that the files of this room declare."""

from fomo_dagster.found import found_in
from fomo_dagster.graph.nodes import measures as room
from fomo_dagster.graph.nodes.measures.measure import Measure

MEASURES = tuple(found_in(room, Measure))  # type: ignore[type-abstract]
