"""The perceptual hashes of what chunks brought, which outlive its images: by them, all that a
release learnt is held against test images, though its arrivals were renamed or removed since, or
are another experiment's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fomo_dagster.errors import StoreError
from fomo_dagster.graph.core.facts import Details, Facts
from fomo_dagster.graph.core.keys import is_chunk, release_key
from fomo_dagster.graph.nodes.hashes import HASHES, HashesNode
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

KIND, VERSION = "chunk_hashes", 1
UNKNOWN = "unknown"  # in place of a digest


def hashes_recipe(chunk: str, left_out: str | None = None) -> Recipe:
    """How the hashes of a chunk are made. chunk: its data version; left_out: that of its near
    duplicates, which are not among them."""
    inputs = {"chunk": chunk} if left_out is None else {"chunk": chunk, "left_out": left_out}
    return Recipe(KIND, VERSION, {"hashes": HashesNode.version}, inputs)


def hashes_by(digest: str, context: NodeContext) -> pl.DataFrame:
    """What was made by such a recipe: HASHES with the dataset of each."""
    artifact = context.store.open(KIND, digest)
    if artifact is None:
        raise StoreError(f"the hashes {digest} of what a release learnt are gone: run again")
    return read_parquet(artifact.path(HASHES))


@dataclass(frozen=True, kw_only=True)
class LearntDetails(Details):
    """by_number: of releases, [key, data version, digest of its hashes] of each chunk that they
    learnt; `UNKNOWN` where nobody looked at it."""

    by_number: Mapping[int, list[list[str]]]


def learnt_key(release: str, start: str) -> str:
    """The key of the facts of what the releases learnt that a start may be of."""
    return f"{release_key(release)}/learnt for {start}"


def learnt_facts(release: str, start: str, context: NodeContext) -> Facts:
    """Of what is live, and of what the start `start` is of, if that was chosen."""
    history, head = history_of(release, context), context.heads.read(start)
    asked = {history.live, None if head is None else head.facts.get("number")}
    records = {number: history.releases.get(number) for number in asked if number is not None}
    found = {
        number: _chunks(record.candidate, context)
        for number, record in records.items()
        if record is not None and record.candidate is not None
    }
    return Facts("", LearntDetails(by_number=found))


def _chunks(candidate: Candidate, context: NodeContext) -> list[list[str]]:
    lineage = candidate.lineage
    # Weights come of these only where what they found was left out.
    left_out = [version for key, version in lineage.items() if "/near_duplicates_" in key]

    def hashes(chunk: str) -> str:
        ways = [*(hashes_recipe(chunk, one) for one in left_out), hashes_recipe(chunk)]
        return next((way.digest for way in ways if context.store.holds(way)), UNKNOWN)

    def look() -> list[list[str]]:
        chunks = {key: version for key, version in lineage.items() if is_chunk(key)}
        return [[key, version, hashes(version)] for key, version in chunks.items()]

    return context.once(("chunks learnt", candidate.checkpoint), look)  # by each stage
