"""What weights were made from, down to the content of the datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.digests import DIGEST_LENGTH
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.store.roots import GALLERY, GALLERY_INDEX

_FOLLOW = frozenset({"release", GALLERY, GALLERY_INDEX})
"""The kinds of assets that follow what is live: they name weights that others made."""
_DIGEST = re.compile(f"[0-9a-f]{{{DIGEST_LENGTH}}}")


class MadeFrom(NamedTuple):
    """What an asset was made from.

    own: asset → data version, itself the last, without what releases that it goes on from were
    made from, which their records tell.
    """

    own: Mapping[str, str]
    releases: Sequence[Candidate]

    @property
    def lineage(self) -> dict[str, str]:
        """Asset → data version of all of it. What an asset was when a release was made from it, and
        is no more, has its version in its name where another version of it is there too."""
        told: dict[str, str] = {}
        for lineage in (*(release.lineage for release in self.releases), self.own):
            for asset, version in lineage.items():
                before = told.pop(asset, version)
                if before != version:
                    told[f"{asset} ({before})"] = before
                told[asset] = version
        return told


def made_from(head: Head, heads: Heads, released: Mapping[str, Candidate]) -> MadeFrom:
    """What an asset was made from. released: the data version of weights → what was released.

    Recipes name their inputs by digest, so what made these can be told as long as its asset is what
    it was then, as it is right after a run. What was released may long be something else by then.
    """
    by_digest: dict[str, Head] = {}
    for _, _, other in heads.all():
        # What only passes on what another made has the data version of that.
        if other is None or other.kind in _FOLLOW:
            continue
        if other.data_version not in _inputs_of(other):
            for digest in _digests_of(other):
                by_digest.setdefault(digest, other)
    found, unknown, wanted = {head.asset: head.data_version}, dict[str, str](), [head]
    releases: dict[str, Candidate] = {}
    for one in wanted:
        for digest in sorted(_inputs_of(one)):
            other = by_digest.get(digest)
            if digest in released:
                releases[digest] = released[digest]
            elif other is None:
                unknown[f"content {digest}"] = digest  # as of images, or a file of weights
            elif other.asset not in found:
                found[other.asset] = other.data_version
                wanted.append(other)
    return MadeFrom({**unknown, **dict(reversed(found.items()))}, tuple(releases.values()))


def _inputs_of(head: Head) -> set[str]:
    return {d for recipe in head.recipes.values() for d in _digests_in(recipe["inputs"])}


def _digests_of(head: Head) -> Iterator[str]:
    """Those by which recipes may name an asset: its own, and of parts of it."""
    yield head.data_version
    yield from (digest for _, digest in head.artifacts.values())
    yield from _digests_in(head.facts)


def _digests_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _digests_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _digests_in(one)
