"""The orders of concepts that the benchmark's release ships as files.

They are permutations of the same 18,381 concepts of the 41 adaptation datasets. What the release
measured for them (captions, accuracies, embeddings, years) is not in it, so that an order computed
here is another one. Reading the files is `streams/entries.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FOLDER = "stream_construction"  # in a copy of the release's repository
RELEASED: Mapping[str, str] = MappingProxyType(
    {
        "random": "random_sequence_1.json to …_5.json",
        "performance": "performance_sequence_1.json",
        "frequency": "frequency_sequence_1.json",
        "similarity": "similarity_sequence_1.json to …_5.json",
        "time_incremental": "time_incremental_dschunked_1.json to …_5.json",
        "interleaved": "time_incremental_rsagg_1.json to …_5.json",
    }
)
"""Order, as a stream declares it → the files; `interleaved` is time_incremental's."""


def released_files(order: str, *, interleaved: bool = False) -> str | None:
    """The files of an order, for people; None if the release ships none."""
    return RELEASED.get("interleaved" if interleaved else order)
