"""Which images of a gallery to label first: those that a model is least sure of, those that stand
for most, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.data.representatives import k_centre
from fomo_dagster.errors import InputError
from fomo_dagster.galleries.files import ROWS_AT_ONCE, EmbeddingsReader, Floats
from fomo_dagster.galleries.rows import COLUMNS

By: TypeAlias = Literal["uncertainty", "coverage", "both"]

DOUBTED = 10
"""Times as many as asked for: so many of the least sure are spread out."""
MOST_SPREAD = 200_000
"""Rows whose embeddings are held at once, to spread what is chosen over them."""

GUESSED: dict[str, pl.DataType] = {
    "suggested": pl.String(), "probability": pl.Float64(), "second": pl.String(),
    "margin": pl.Float64(),
}  # fmt: skip
TO_LABEL: dict[str, pl.DataType] = {"rank": pl.Int64(), **COLUMNS, **GUESSED}
"""The columns of what to label. rank: from 1. suggested: the most probable class, null without
classes; second: the next one; margin: how much more probable the first is."""


def to_label(
    reader: EmbeddingsReader, by: By, most: int, *, concept: str | None = None,
    classes: Sequence[str] = (), of_classes: Floats | None = None, scale: float = 1.0,
) -> pl.DataFrame:  # fmt: skip
    """`TO_LABEL` of up to `most` rows, what to label first first.

    uncertainty: the smallest margin between the two most probable classes comes first (best versus
    second best, Joshi et al. 2009); of equal ones the first row. coverage: always the image that is
    farthest from all before it (greedy k-centre, arXiv 1708.00489), the first being the nearest to
    the mean. both: as coverage, among the `DOUBTED` · `most` with the smallest margins.

    concept: only rows of it. of_classes: (C, D), L2-normalised, of the classes' texts; None: there
    are no classes, and nothing is guessed. scale: the factor of cosines in the softmax. Raises
    `InputError` where no rows are left, where classes are lacking, and for a coverage of more than
    `MOST_SPREAD` rows.
    """
    if len(classes) == 1 or (by != "coverage" and not classes):
        raise InputError(
            f"{by} needs at least two classes to choose from, and {len(classes)} are named: name "
            "them with --class, or none and take --by coverage"
        )
    chosen = np.arange(reader.rows)
    if concept is not None:
        chosen = np.flatnonzero((reader.concepts() == concept).fill_null(value=False))
    if not len(chosen):
        of = "" if concept is None else f" of the concept {concept!r}"
        raise InputError(f"the gallery has no rows{of}, so there is nothing to label")
    guessed = None
    if of_classes is not None:
        guessed = guesses(reader, of_classes, scale)
        if by != "coverage":
            order = np.argsort(guessed.margins[chosen], kind="stable")
            chosen = chosen[order[: most * (1 if by == "uncertainty" else DOUBTED)]]
    if by != "uncertainty":
        if len(chosen) > MOST_SPREAD:
            way_out = "ask for fewer" if by == "both" else "take --by both"
            raise InputError(
                f"{by} holds the embeddings of {len(chosen):,} rows at once, and {MOST_SPREAD:,} "
                f"are the most: {way_out}, or give one --concept"
            )
        chosen = np.sort(chosen)
        features = np.stack([reader.read(int(place), 1)[0] for place in chosen])
        chosen = chosen[k_centre(features, most)]
    none = {name: pl.lit(None, kind) for name, kind in GUESSED.items()}
    said = none if guessed is None else guessed.of(chosen, classes)
    found = reader.columns(chosen.tolist()).with_row_index("rank", offset=1).with_columns(**said)
    return found.select(*TO_LABEL).cast(pl.Schema(TO_LABEL))


class Guesses:
    """Of N rows: the places of the two most probable classes, (N, 2), and their probabilities."""

    def __init__(self, places: npt.NDArray[np.int64], probabilities: Floats) -> None:
        self._places, self._probabilities = places, probabilities.astype(np.float64)
        self.margins: npt.NDArray[np.float64] = self._probabilities @ np.array([1.0, -1.0])
        """(N,)"""

    def of(self, rows: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, pl.Series]:
        """`GUESSED` of some rows."""
        first, second = self._places[rows].T.tolist()
        return {
            "suggested": pl.Series([classes[place] for place in first]),
            "probability": pl.Series(self._probabilities[rows, 0]),
            "second": pl.Series([classes[place] for place in second]),
            "margin": pl.Series(self.margins[rows]),
        }


def guesses(reader: EmbeddingsReader, of_classes: Floats, scale: float) -> Guesses:
    """What the model would call each row; a part of the gallery is read at a time."""
    places, probabilities = [], []
    for start in range(0, reader.rows, ROWS_AT_ONCE):
        embeddings = reader.read(start, min(ROWS_AT_ONCE, reader.rows - start)).astype(np.float64)
        logits = scale * embeddings @ of_classes.T.astype(np.float64)  # (n, C)
        logits -= logits.max(axis=1, keepdims=True)
        exponents = np.exp(logits)
        shares = exponents / exponents.sum(axis=1, keepdims=True)
        best = np.argsort(-shares, axis=1, kind="stable")[:, :2]
        places.append(best)
        probabilities.append(np.take_along_axis(shares, best, axis=1))
    return Guesses(np.concatenate(places), np.concatenate(probabilities))
