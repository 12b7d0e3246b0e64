"""The picture of test images that a stage gets wrong, for who looks at its evaluation.

It is no part of an artifact: what the stage before got wrong is another's, and images go. So it is
kept in the home's cache, by the digests of both evaluations.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import polars as pl

from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.shown import Picture
from fomo_dagster.graph.work.sample_images import SampleImages
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.heads import Head
from fomo_dagster.tables.prediction_changes import Errors, errors_of

MOST = 12  # images
MOST_OF_CONCEPT = 2

logger = logging.getLogger(__name__)


def misread(now: Head, before: str | None, context: NodeContext) -> dict[str, Picture]:
    """What is newly wrong since the evaluation of the key `before`, the hardest hit concepts first;
    or where that is not there as it is declared, or there is none, what is wrong and surest.

    Nothing where nothing is wrong, or no image of it can be shown; nothing is raised.
    """
    try:
        then = None if before is None else _head(before, context)
        title = "most_surely_wrong" if then is None else f"newly_wrong_since_stage_{then.stage}"
        name = f"{now.digest}-{'' if then is None else then.digest}.jpg"
        path = context.home.cache / "misread" / name
        if not path.is_file():
            data = _drawn(now, then, context)
            if data is None:
                return {}
            write_bytes(path, data)
    except (FomoError, OSError) as error:
        logger.info("no picture of what %s gets wrong: %s", now.asset, error)
        return {}
    return {title: Picture(path)}


def _head(key: str, context: NodeContext) -> Head | None:
    try:
        context.facts(key)
    except FomoError:
        return None
    return context.heads.read(key)


def _drawn(now: Head, then: Head | None, context: NodeContext) -> bytes | None:
    from fomo_dagster.plots.contact_sheet import Tile  # which loads matplotlib
    from fomo_dagster.plots.thumbnails import thumbnails

    assert now.experiment is not None
    since = None if then is None else then.stage
    errors = errors_of(context.home, now.experiment, stage=now.stage, since=since)
    image_of = SampleImages(lambda: context)
    tiles = []
    for row in _chosen(errors):
        image = image_of(row["dataset"], row["key"])
        if image is not None:
            sure = row["probability_of_predicted"]
            taken_for = row["predicted"] if sure is None else f"{sure:.0%} {row['predicted']}"
            tiles.append(Tile(image, row["concept"], taken_for))
        if len(tiles) == MOST:
            return thumbnails(tiles)
    return thumbnails(tiles) if tiles else None


def _chosen(errors: Errors) -> Iterator[dict[str, Any]]:
    wrong = errors.wrong.filter(query="image")
    if errors.before is None:
        wrong = wrong.sort("probability_of_predicted", descending=True, nulls_last=True)
    turn = pl.int_range(pl.len()).over("dataset", "concept")
    yield from wrong.filter(turn < MOST_OF_CONCEPT).head(3 * MOST).iter_rows(named=True)
