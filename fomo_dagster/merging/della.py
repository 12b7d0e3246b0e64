"""DELLA: drops changes at random, small ones more often, and rescales the rest
(arXiv 2406.11617)."""

from __future__ import annotations

from typing import Literal

from fomo_dagster.merging.sparsifying import RankedDropping
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Della(RankedDropping, Summing):
    """`θ₀ + s · Σ_k m_k τ_k / (1 - p_k)`. Each number of the mask m_k is 0 with its own probability
    p_k, else 1 (arXiv 2406.11617)."""

    technique: Literal["della"] = "della"


class DellaTies(RankedDropping, SignElection):
    """Drops and rescales like DELLA, then elects signs like TIES instead of adding up. This is the
    paper's own merge."""

    technique: Literal["della_ties"] = "della_ties"
