"""Model Breadcrumbs: drops the smallest and the largest changes (arXiv 2312.06795)."""

from __future__ import annotations

from typing import Literal

from fomo_dagster.merging.sparsifying import TailCutting
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Breadcrumbs(TailCutting, Summing):
    """`θ₀ + s · Σ_k m_k τ_k`. The mask m_k drops the largest and smallest magnitudes of τ_k
    (arXiv 2312.06795)."""

    technique: Literal["breadcrumbs"] = "breadcrumbs"


class BreadcrumbsTies(TailCutting, SignElection):
    """Drops the same magnitudes as `breadcrumbs`, then elects signs like TIES instead of adding
    up."""

    technique: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"
