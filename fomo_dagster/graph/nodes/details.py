"""What data assets tell the assets that depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fomo_dagster.graph.core.facts import Details
from fomo_dagster.store.digests import digest_of


@dataclass(frozen=True, kw_only=True)
class SourceDetails(Details):
    """Of a dataset's source: how many samples it holds, and in how many bytes where their files are
    used as they lie."""

    samples: int
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class SampleDetails(Details):
    """Of a dataset's samples.

    train: concept → digest of its training samples; train_samples: their numbers. wordless:
    concepts with training samples without captions. test: digest of the test split; test_samples:
    its size. concepts: all, those that the source names without samples too. quarantined: digests
    of unreadable images. counts: of images by what is odd about them, where they were looked at.
    """

    train: Mapping[str, str]
    train_samples: Mapping[str, int]
    wordless: list[str]
    test: str
    test_samples: int
    concepts: list[str]
    quarantined: list[str]
    counts: Mapping[str, int] | None = None

    @cached_property
    def concepts_digest(self) -> str:
        """Of `concepts`, which every evaluation of the dataset is a function of."""
        return digest_of(self.concepts)


@dataclass(frozen=True, kw_only=True)
class StreamedDetails(Details):
    """Of a streamed dataset. streamed: how positions are spread over its shards."""

    streamed: Mapping[str, Any]
