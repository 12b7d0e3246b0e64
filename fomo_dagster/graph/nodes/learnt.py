"""Which of an experiment's stages a release was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fomo_dagster.graph.core.keys import is_chunk
from fomo_dagster.graph.nodes.chunk import ChunkNode
from fomo_dagster.releases.records import Candidate

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


def stages_learnt(
    candidate: Candidate, trained_on: Sequence[str], chunks: Sequence[str], context: NodeContext
) -> list[int]:
    """The stages, counted from 1. trained_on: the keys of what each trains on; chunks: of the
    chunks that these are of.

    A chunk that changed since counts where it brings a concept that the release learnt: its weights
    know some of its samples, and nobody can tell which. What the release learnt and is no longer in
    the store is told by its key.
    """
    known = set(candidate.lineage.values())
    concepts, gone = context.once(
        ("concepts learnt", candidate.checkpoint), lambda: _concepts_learnt(candidate, context)
    )

    def look(key: str, chunk: str) -> bool:
        head, brought = context.heads.read(key), context.heads.read(chunk)
        # By their content: without near duplicates, a chunk may go by another key.
        if head is not None and head.data_version in known:
            return True
        brings = [] if brought is None else brought.facts.get("concepts", [])
        return chunk in gone or any((dataset, name) in concepts for dataset, name in brings)

    def is_learnt(key: str, chunk: str) -> bool:
        asked = ("is learnt", candidate.checkpoint, key, chunk)  # by each stage that follows
        return context.once(asked, lambda: look(key, chunk))

    pairs = zip(trained_on, chunks, strict=True)
    return [stage for stage, pair in enumerate(pairs, start=1) if is_learnt(*pair)]


def _concepts_learnt(
    candidate: Candidate, context: NodeContext
) -> tuple[set[tuple[str, str]], set[str]]:
    """(dataset, concept) of the chunks of a release; and the keys of those that are no longer in
    the store."""
    concepts, gone = set[tuple[str, str]](), set[str]()
    for key, version in candidate.lineage.items():
        if not is_chunk(key):
            continue
        artifact = context.store.open(ChunkNode.kind, version)
        if artifact is None:
            gone.add(key)
        else:
            inputs = artifact.manifest["recipe"]["inputs"]
            concepts.update((dataset, name) for dataset, name, *_ in inputs.get("concepts", []))
    return concepts, gone
