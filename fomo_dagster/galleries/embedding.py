"""Embeds a gallery's rows group by group, and copies the groups that were embedded before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.galleries.files import (
    EMBEDDINGS,
    GROUPS,
    EmbeddingsReader,
    EmbeddingsWriter,
    Floats,
    read_groups,
    write_groups,
)
from fomo_dagster.galleries.groups import first_groups, groups_of
from fomo_dagster.store.artifacts import Artifact

Encode = Callable[[Iterable[pl.DataFrame]], Iterator[Floats]]
"""The rows of groups to their embeddings, (N, D), one group after the other."""


@dataclass(frozen=True)
class Embedded:
    """How many rows were encoded, and how many copied."""

    encoded: int
    copied: int


def embed(
    rows: pl.DataFrame,
    folder: Path,
    encode: Encode,
    before: Sequence[Artifact],
    progress: Callable[[int, int], None],
    first: int | None = None,
) -> Embedded:
    """Write the files of a gallery into `folder`.

    rows: those of `rows_of`; first: about how many of them, from the first on, as `first_groups`;
    None: all. before: galleries that the same weights embedded in the same way,
    whose groups are copied where they are these. progress: told of rows done and all of them.
    """
    groups, known = groups_of(rows), _known(before)
    if first is not None:
        groups = first_groups(groups, rows, first)
    total = sum(group.rows for group in groups)
    new = [group for group in groups if group.digest not in known]
    encoded = encode(rows.slice(group.start, group.rows) for group in new)
    done = 0
    with EmbeddingsWriter(folder / EMBEDDINGS) as writer:
        for group in groups:
            if group.digest in known:
                reader, start = known[group.digest]
                embeddings = reader.read(start, group.rows)
            else:
                embeddings = next(encoded)
            writer.add(rows.slice(group.start, group.rows), embeddings)
            done += group.rows
            progress(done, total)
    write_groups(groups, folder / GROUPS)
    count = sum(group.rows for group in new)
    return Embedded(count, total - count)


def _known(before: Sequence[Artifact]) -> Mapping[str, tuple[EmbeddingsReader, int]]:
    """Digest of a group → where it is, in the first of the galleries that has it."""
    known: dict[str, tuple[EmbeddingsReader, int]] = {}
    for artifact in before:
        reader = EmbeddingsReader(artifact.path(EMBEDDINGS))
        for group in read_groups(artifact.path(GROUPS)):
            known.setdefault(group.digest, (reader, group.start))
    return known
