"""Whether two sets of features come from one distribution: a kernel two-sample test, and a
classifier that tells them apart.

The test is that of the maximum mean discrepancy (Gretton et al. 2012, JMLR 13:723) with a Gaussian
kernel, whose width is the median distance, and its p-value is by permutation. It says whether there
is a difference. The area under the classifier's ROC curve says how large it is (Lopez-Paz & Oquab
2017, arXiv 1610.06545), and its probabilities say which samples make it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FOLDS = 5
ITERATIONS = 1000  # of the classifier's L-BFGS at most
ROWS = 128  # permutations that are looked at together, which bounds the memory


@dataclass(frozen=True)
class Drift:
    """mmd: the unbiased estimate of the squared maximum mean discrepancy, about 0 where nothing
    drifts; p: that chance alone gives as much; auc: of the classifier, 0.5 where nothing can be
    told apart; novelty: (N,), of each of the newer, from 0 to 1: how probably it is one of these,
    for a classifier that was not trained on it and for which both kinds are as frequent."""

    mmd: float
    p: float
    auc: float
    novelty: Floats


def drift(newer: Floats, earlier: Floats, permutations: int, seed: int = 0) -> Drift:
    """newer: (N, D) features; earlier: (M, D); N and M are `FOLDS` at least."""
    mmd, p = mmd_test(newer, earlier, permutations, seed)
    auc, novelty = told_apart(newer, earlier, seed)
    return Drift(mmd, p, auc, novelty)


def mmd_test(
    newer: Floats, earlier: Floats, permutations: int, seed: int = 0
) -> tuple[float, float]:
    """The unbiased estimate of MMD² of (N, D) and (M, D) features, and its p-value.

    p is (1 + permutations with as much) / (1 + permutations), so never 0 (Phipson & Smyth 2010,
    arXiv 1603.05766).
    """
    features = np.concatenate([newer, earlier]).astype(np.float64)
    count, size = len(features), len(newer)
    kernel = _kernel(features)
    sums, total = kernel.sum(axis=1), float(kernel.sum())

    def estimates(chosen: Floats) -> Floats:
        """Of P choices of N rows, (P, N + M) zeros and ones."""
        within = np.einsum("pi,pi->p", chosen @ kernel, chosen)
        crossing = chosen @ sums - within
        others = total - 2 * crossing - within
        rest = count - size
        return np.asarray(
            within / (size * (size - 1))
            + others / (rest * (rest - 1))
            - 2 * crossing / (size * rest)
        )

    own = np.zeros((1, count))
    own[0, :size] = 1
    observed = float(estimates(own)[0])
    generator = np.random.default_rng(seed)
    as_much = 0
    for start in range(0, permutations, ROWS):
        mixed = np.repeat(own, min(ROWS, permutations - start), axis=0)
        # What differs by rounding alone is as much.
        as_much += int((estimates(generator.permuted(mixed, axis=1)) >= observed - 1e-12).sum())
    return observed, (1 + as_much) / (1 + permutations)


def _kernel(features: Floats) -> Floats:
    """(N, N), Gaussian, with zeros on the diagonal."""
    squares = (features**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * features @ features.T
    np.maximum(distances, 0, out=distances)
    median = float(np.median(distances[np.triu_indices(len(features), 1)]))
    kernel = np.exp(-distances / median) if median > 0 else (distances == 0).astype(np.float64)
    np.fill_diagonal(kernel, 0)
    return np.asarray(kernel)


def told_apart(newer: Floats, earlier: Floats, seed: int = 0) -> tuple[float, Floats]:
    """The area under the ROC curve of a logistic regression that tells (N, D) from (M, D)
    features, by cross-validation, and its probabilities of the former, (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    features = np.concatenate([newer, earlier])
    is_newer = np.arange(len(features)) < len(newer)
    probabilities = cross_val_predict(
        LogisticRegression(class_weight="balanced", max_iter=ITERATIONS),
        features,
        is_newer,
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        method="predict_proba",
    )[:, 1]
    return float(roc_auc_score(is_newer, probabilities)), probabilities[: len(newer)]
