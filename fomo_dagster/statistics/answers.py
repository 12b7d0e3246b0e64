"""Which queries of a dataset several replicates of a method answer right, and the score of that.

The queries about one image (itself, and in retrieval its captions) are a cluster: they are drawn
together, since a hard image is hard in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """R replicates, Q queries in C clusters of one dataset.

    correct: (R, Q); of_captions: (Q,), whether a query is a caption; clusters: (Q,), from 0 to C-1.
    """

    correct: npt.NDArray[np.bool_]
    of_captions: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]

    @cached_property
    def count(self) -> int:
        """C."""
        return int(self.clusters.max()) + 1

    @cached_property
    def _parts(self) -> list[tuple[Floats, Floats]]:
        """Of the images, and of the captions if there are any: hits (R, C) and totals (C,)."""
        parts = []
        for own in (~self.of_captions, self.of_captions):
            if own.any():
                places = self.clusters[own]
                rows = [np.bincount(places, row[own], self.count) for row in self.correct]
                hits = np.stack(rows).astype(np.float64)
                totals = np.bincount(places, minlength=self.count).astype(np.float64)
                parts.append((hits, totals))
        return parts

    def scores(self, weights: Floats | None = None) -> Floats:
        """(R,), in percent: accuracy, in retrieval the mean of both recalls. weights: (B, C), how
        often each cluster counts in B draws; then (B, R)."""
        if weights is None:
            of_one: Floats = self.scores(np.ones((1, self.count)))[0]
            return of_one
        of_parts = [
            (weights @ hits.T) / (weights @ totals)[:, None] for hits, totals in self._parts
        ]
        return np.asarray(100 * np.mean(of_parts, axis=0))

    @cached_property
    def influence(self) -> Floats:
        """(R, C), what each cluster adds to the score in first order; each row has mean 0."""
        of_parts = [
            (hits - (hits.sum(axis=1) / totals.sum())[:, None] * totals) / totals.mean()
            for hits, totals in self._parts
        ]
        return np.asarray(100 * np.mean(of_parts, axis=0))
