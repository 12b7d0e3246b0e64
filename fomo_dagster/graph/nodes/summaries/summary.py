"""What nodes that sum up an experiment have in common, and what they are made from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.core.node import Node


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An experiment, and the keys of what its summaries can look at.

    datasets: those that it is evaluated on. roles: dataset → adaptation or held_out. since: dataset
    → the first stage that is evaluated on it, if that is not stage 0. overview: its row of the
    table `experiments`, but for name and stages.
    """

    experiment: Experiment
    datasets: Mapping[str, Dataset]
    roles: Mapping[str, str]
    since: Mapping[str, int]
    evaluation_keys: tuple[str, ...]  # stages 0..T
    chunk_keys: tuple[str, ...]  # stages 1..T
    overview: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Summary(Node):
    """An asset that follows an experiment's evaluations."""

    @classmethod
    @abstractmethod
    def of(cls, evaluated: Evaluated) -> Self | None:
        """The node of an experiment; None if the experiment does not ask for one."""
