"""Entries of a stream: `dataset+++concept`, as the benchmark's stream files write them.

Writing, reading and checking entries; their order is `orderings.py`'s, their stages `chunks.py`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path

from fomo_dagster.data.benchmark.registry import canonical_name
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.texts import class_name, is_text

SEPARATOR = "+++"
NAMED_AT_MOST = 5  # entries that one error names


def format_entry(dataset: str, concept: str) -> str:
    """The entry of a concept. Raises `InputError` if it could not be read back."""
    entry = f"{dataset}{SEPARATOR}{concept}"
    if parse_entry(entry) != (dataset, concept):
        raise InputError(
            f"dataset {dataset!r} and concept {concept!r} cannot be an entry of a stream: "
            f"{entry!r} can be read in two ways; rename the dataset"
        )
    return entry


def parse_entry(entry: str) -> tuple[str, str]:
    """(dataset, concept) of an entry. Raises `InputError` unless it is `dataset+++concept`."""
    dataset, _, concept = entry.partition(SEPARATOR)
    if not dataset or not concept or entry.count(SEPARATOR) != 1:
        raise InputError(
            f"{entry!r} is not an entry of a stream: write dataset{SEPARATOR}concept, with "
            f"{SEPARATOR} exactly once"
        )
    return dataset, concept


def canonical_entry(entry: str, declared: Container[str]) -> str:
    """The entry as entries are compared: its concept in the one form of a class's name, and the
    handle of its dataset where it is one of the benchmark's under another name."""
    dataset, separator, concept = entry.partition(SEPARATOR)
    return f"{canonical_name(dataset.strip(), declared)}{separator}{class_name(concept)}"


def read_entries(path: Path) -> list[str]:
    """The entries of a stream file, one JSON list of texts, in its order.

    Raises `InputError` if the file cannot be read or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the stream file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the stream file {path} is not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(entry, str) for entry in content):
        raise InputError(
            f"the stream file {path} must hold one JSON list of texts dataset{SEPARATOR}concept"
        )
    spoiled = [number for number, entry in enumerate(content, 1) if not is_text(entry)]
    if spoiled:
        raise InputError(
            f"the stream file {path} has half a character (a lone surrogate) in "
            f"{len(spoiled)} entries, first in number {spoiled[0]}: {content[spoiled[0] - 1]!r}"
        )
    return content


def entries_of(datasets: Iterable[str], concepts: Mapping[str, Collection[str]]) -> list[str]:
    """All of `concepts` (by dataset) of each dataset, sorted, in the order of `datasets`."""
    entries: list[str] = []
    for dataset in datasets:
        _check_dataset(dataset, concepts)
        entries.extend(format_entry(dataset, concept) for concept in sorted(concepts[dataset]))
    return entries


def validate(entries: Sequence[str], concepts: Mapping[str, Collection[str]]) -> None:
    """Check that every entry names one of `concepts` (by dataset), and that none stands twice.

    Raises `InputError` with the number of wrong entries, the first of them and the nearest names.
    """
    repeated = [entry for entry, count in Counter(entries).items() if count > 1]
    if repeated:
        raise InputError(
            f"a concept comes once in a stream, and {len(repeated)} of its entries come again: "
            + _list([repr(entry) for entry in repeated])
        )
    known = {dataset: frozenset(names) for dataset, names in concepts.items()}
    unknown = []
    for dataset, concept in map(parse_entry, entries):
        _check_dataset(dataset, known)
        if concept not in known[dataset]:
            unknown.append((dataset, concept))
    if unknown:
        raise InputError(
            f"{len(unknown)} entries of the stream name a concept without training samples: "
            + _list(
                [
                    f"{concept!r} of {dataset} ({nearest(concept, known[dataset])})"
                    for dataset, concept in unknown[:NAMED_AT_MOST]
                ],
                len(unknown),
            )
        )


def _check_dataset(dataset: str, concepts: Mapping[str, Collection[str]]) -> None:
    if dataset not in concepts:
        raise InputError(
            f"the stream names the dataset {dataset!r}, which there is not: "
            + nearest(dataset, concepts)
        )


def _list(names: Sequence[str], count: int | None = None) -> str:
    """The first of `names`, and how many more of `count` (by default, of them) there are."""
    more = (len(names) if count is None else count) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
