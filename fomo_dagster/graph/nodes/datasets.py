"""Which nodes a dataset has, by how its images are come by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fomo_dagster.data.declarations import Dataset, WebDatasetSource
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.listing import ObserveStream, StreamedNode
from fomo_dagster.graph.nodes.placed_shards import ObserveTars, PlacedNode
from fomo_dagster.graph.nodes.shards import DatasetSource, ShardsNode


def is_in_place(dataset: Dataset) -> bool:
    """Whether the dataset's images stay where they are."""
    return isinstance(dataset.source, WebDatasetSource)


def is_streamed(dataset: Dataset) -> bool:
    """Whether nobody knows the dataset's samples."""
    return isinstance(dataset.source, WebDatasetSource) and not dataset.source.index


def nodes_of(dataset: Dataset) -> tuple[Callable[..., Any], Callable[..., Node]]:
    """The look at a dataset's source and the node of its images, by how these are come by."""
    if is_streamed(dataset):
        return ObserveStream, StreamedNode
    if is_in_place(dataset):
        return ObserveTars, PlacedNode
    return DatasetSource, ShardsNode
