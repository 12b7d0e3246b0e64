"""DELLA: drop changes by lot, small ones more often, rescale the rest (arXiv 2406.11617)."""

from __future__ import annotations

from typing import Literal

from fomo_dagster.merging.sparsifying import RankedDropping
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Della(RankedDropping, Summing):
    """`θ₀ + s · Σ_k m_k τ_k / (1 - p_k)`, each number of m_k 0 with its own chance p_k, else 1."""

    technique: Literal["della"] = "della"


class DellaTies(RankedDropping, SignElection):
    """The same, with TIES's election of signs in the place of the sum: the paper's own merge."""

    technique: Literal["della_ties"] = "della_ties"
