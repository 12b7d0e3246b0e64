"""Whether a cluster has what a plan takes, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run.clusters import Cluster
from fomo_dagster.graph.run.plan import Planned


def missing_devices(planned: Iterable[Planned], graph: Graph, cluster: Cluster) -> list[str]:
    """A sentence for whatever is needed and never there, with the first asset that needs it."""
    first: dict[Needs, str] = {}
    for entry in planned:
        needs = graph.nodes[entry.asset].needs
        if needs is not None and entry.compute:
            first.setdefault(needs, entry.asset)
    said: dict[str, str] = {}
    for needs, asset in first.items():
        try:
            cluster.check(needs)
        except InputError as error:
            said.setdefault(str(error), asset)
    return [f"{asset}: {error}" for error, asset in said.items()]
