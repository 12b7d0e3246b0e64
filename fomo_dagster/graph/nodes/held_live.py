"""What a stage that is up for release is held against: the facts that say what was live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fomo_dagster.graph.core.facts import Details, Facts
from fomo_dagster.store.digests import digest_of

if TYPE_CHECKING:
    from fomo_dagster.releases.records import Candidate


@dataclass(frozen=True, kw_only=True)
class CandidateDetails(Details):
    """reference: the number of the release that it was held against; None: nothing was live.
    galleries: the key of each gallery that it was held against → its data version then."""

    reference: int | None = None
    galleries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LiveDetails(Details):
    """What a candidate is held against: its number, the data version of its weights, and the
    declaration of its backbone; and galleries, as of `CandidateDetails`."""

    number: int | None = None
    checkpoint: str | None = None
    backbone: Mapping[str, Any] | None = None
    galleries: Mapping[str, str] = field(default_factory=dict)


def live_facts(
    number: int | None, candidate: Candidate | None, galleries: Mapping[str, str]
) -> Facts:
    """Those of a release and of galleries. candidate: what was released under the number; None:
    nothing."""
    details = LiveDetails(number=number, galleries=galleries)
    if candidate is not None:
        details = LiveDetails(
            number=number, checkpoint=candidate.checkpoint, backbone=candidate.backbone,
            galleries=galleries,
        )  # fmt: skip
    version = details.checkpoint or "nothing"
    if galleries:
        version = digest_of({"live": version, "galleries": dict(galleries)})
    return Facts(version, details)
