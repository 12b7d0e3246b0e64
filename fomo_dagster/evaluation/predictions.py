"""What a checkpoint found for each test sample: a row a query, of a few bytes.

Key figures are half floats, since an experiment has millions of rows and none of its metrics is
computed from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from fomo_dagster.evaluation.ranking import Integers, Ranking
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS


def classified(
    keys: Sequence[str], targets: Integers, classes: Sequence[str], found: Ranking, scale: float
) -> pl.DataFrame:
    """The predictions of N images. targets: (N,), their classes; found: of the images among the
    classes; scale: the factor of similarities in the softmax over all classes."""
    names = pl.Series(classes, dtype=pl.String)
    return _frame(
        found,
        query="image",
        key=pl.Series(keys, dtype=pl.String),
        concept=names[targets],
        predicted=names[found.first],
        probability=np.exp(scale * found.right - found.log_total),
        probability_of_predicted=np.exp(scale * found.best - found.log_total),
    )


def retrieved(
    images: pl.DataFrame, owners: Integers, to_texts: Ranking, to_images: Ranking
) -> pl.DataFrame:
    """The predictions of N images among their M captions, then of the captions among the images.

    images: N rows with key, concept and captions; owners: (M,), the image of each caption, the
    first image's captions first.
    """
    keys, concepts = images["key"], images["concept"]
    own = np.arange(len(images))
    places = np.arange(len(owners)) - np.searchsorted(owners, own)[owners]
    return pl.concat(
        [
            _frame(
                to_texts,
                query="image",
                key=keys,
                concept=concepts,
                predicted=keys[owners[to_texts.first]],
            ),
            _frame(
                to_images,
                query="caption",
                key=keys[owners],
                caption=places,
                concept=concepts[owners],
                predicted=keys[to_images.first],
            ),
        ]
    )


def _frame(found: Ranking, *, query: str, **columns: Any) -> pl.DataFrame:
    margins = found.right - found.best_wrong  # infinite where no answer is wrong
    frame = pl.DataFrame(
        {**columns, "rank": found.ranks, "margin": np.where(np.isinf(margins), np.nan, margins)},
        nan_to_null=True,
    ).with_columns(query=pl.lit(query))
    missing = [pl.lit(None).alias(name) for name in PREDICTION_COLUMNS if name not in frame.columns]
    typed = (pl.col(name).cast(dtype) for name, dtype in PREDICTION_COLUMNS.items())
    return frame.with_columns(missing).select(typed)
