"""The files of a folder that are no images, and how they are told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fomo_dagster.data.sources.files import shortlist

REASONS_NAMED = 5
NAMES_OF_EACH = 2
NO_IMAGE = "no image by its suffix"  # how such a reason begins


class Unused(NamedTuple):
    """A file that is no sample. place: its path below the dataset's folder."""

    place: str
    reason: str


def by_reason(unused: Sequence[Unused]) -> str:
    """How many there are for each reason, and the first of them."""
    counts = Counter(file.reason for file in unused)
    said = []
    for reason, count in counts.most_common(REASONS_NAMED):
        places = [file.place for file in unused if file.reason == reason]
        said.append(f"{count} {reason}: {shortlist(places, NAMES_OF_EACH)}")
    rest = len(counts) - REASONS_NAMED
    return "; ".join(said) + (f"; and for {rest} more reasons" if rest > 0 else "")
