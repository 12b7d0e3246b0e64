"""Which nodes a dataset has, by how its images are accessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fomo_dagster.data.sources.declared import Access
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.listing import ObserveStream, StreamedNode
from fomo_dagster.graph.nodes.placed_shards import ObserveTars, PlacedNode
from fomo_dagster.graph.nodes.shards import DatasetSource, ShardsNode

NODES: Mapping[Access, tuple[Callable[..., Any], Callable[..., Node]]] = MappingProxyType(
    {
        "copied": (DatasetSource, ShardsNode),
        "indexed": (ObserveTars, PlacedNode),
        "streamed": (ObserveStream, StreamedNode),
    }
)
"""How a training comes by a dataset's images → the look at their source and the node of them."""
