"""How the scores of a method's runs are spread over datasets: performance profiles, as rliable has
them (Agarwal et al. 2021, arXiv 2108.13264, section 4.2)."""

from __future__ import annotations

import numpy as np

from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.intervals import DRAWS, LEVEL


def score_profile(scores: Floats, taus: Floats) -> Floats:
    """(K,), the share of runs and datasets that score above each τ. scores: (R, N), of R runs on N
    datasets; taus: (K,)."""
    return np.asarray((scores[..., None] > taus).mean(axis=(0, 1)))


def profile_band(
    scores: Floats, taus: Floats, *, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> tuple[Floats, Floats] | None:
    """The interval at each τ, (K,) and (K,), of a bootstrap that draws the runs of each dataset by
    themselves. None of one run."""
    runs, datasets = scores.shape
    if runs == 1:
        return None
    random = np.random.default_rng(seed)
    above = scores[..., None] > taus  # (R, N, K)
    chosen = random.integers(runs, size=(draws, runs, datasets))
    drawn = np.stack([above[one, np.arange(datasets)].mean(axis=(0, 1)) for one in chosen])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
