"""The benchmark's datasets as declarations, which an experiment can name without declaring them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from fomo_dagster.data.benchmark.registry import (
    BenchmarkDataset,
    benchmark_datasets,
    by_any_name,
    find,
)
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.release.source import FomoReleaseSource


@cache
def benchmark_declarations() -> Mapping[str, Dataset]:
    """Handle → declaration of each of the 63 datasets, read from the benchmark's release."""
    return MappingProxyType(
        {
            name: Dataset(source=FomoReleaseSource(), **_values(dataset))
            for name, dataset in benchmark_datasets().items()
        }
    )


def of_benchmark(name: str, dataset: Dataset) -> BenchmarkDataset | None:
    """The benchmark's dataset that one declared under `name` is, or takes the place of."""
    source = dataset.source
    if isinstance(source, FomoReleaseSource):
        return by_any_name().get(source.dataset or name)
    return benchmark_datasets().get(name)


def with_benchmark_values(name: str, declaration: Any) -> Any:
    """A declaration as it stands in a file. What it leaves out (task, prompt, year, domain,
    licence) is the benchmark's where its source is the release, and where it is declared under a
    handle of the benchmark, whose place it takes.

    Raises `InputError` if the release has no such dataset.
    """
    source = declaration.get("source") if isinstance(declaration, dict) else None
    if not isinstance(source, dict):
        return declaration
    if source.get("type") == "fomo_release":
        known = find(str(source.get("dataset") or name))
    elif name in benchmark_datasets():
        known = benchmark_datasets()[name]
    else:
        return declaration
    return {**_values(known), **declaration}


def _values(dataset: BenchmarkDataset) -> dict[str, Any]:
    return {
        "task": dataset.task,
        "prompt": dataset.prompt,
        "year": dataset.year,
        "domain": dataset.domain,
        "licence": dataset.licence,
    }
