"""What a registry of models is told of a release name: every release as a version, and the
aliases."""

from __future__ import annotations

from fomo_dagster.home import Home
from fomo_dagster.releases.records import Record, ReleaseLog
from fomo_dagster.trackers.tracker import Model, Version

LIVE = "live"


def registered_model(home: Home, name: str) -> Model:
    """As the records have it now."""
    history = ReleaseLog(home, name).read()
    live = {} if history.live is None else {LIVE: history.live}
    versions = (_version(number, record) for number, record in sorted(history.releases.items()))
    aliases = {**history.aliases, **live}
    return Model(name, tuple(versions), aliases, tuple(sorted(history.removed_aliases)))


def _version(number: int, record: Record) -> Version:
    candidate = record.candidate
    assert candidate is not None  # of every release
    kind, digest = candidate.weights
    scores = {k: f"{value:.2f}" for k, value in candidate.scores.items() if value is not None}
    tags = {
        "experiment": candidate.experiment,
        "stage": str(candidate.stage),
        "digest": digest,
        "released_at": record.recorded_at,
        "approval": record.approval or "",
        **scores,
    }
    return Version(number, f"fomo-store:{kind}/{digest}", tags)
