"""Model Breadcrumbs: neither the smallest nor the largest changes (arXiv 2312.06795)."""

from __future__ import annotations

from typing import Literal

from fomo_dagster.merging.sparsifying import TailCutting
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Breadcrumbs(TailCutting, Summing):
    """`θ₀ + s · Σ_k m_k τ_k`, the mask m_k without the largest and smallest magnitudes of τ_k."""

    technique: Literal["breadcrumbs"] = "breadcrumbs"


class BreadcrumbsTies(TailCutting, SignElection):
    """The same masks, then TIES's election of signs in the place of the sum."""

    technique: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"
