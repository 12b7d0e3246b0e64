"""What is live, for assets that follow it."""

from __future__ import annotations

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.retention import restoring
from fomo_dagster.home import Home
from fomo_dagster.releases.records import Candidate, ReleaseLog
from fomo_dagster.store.artifacts import Artifact


def released_weights(home: Home, name: str, checkpoint: str, wanted_by: str) -> tuple[
    Candidate, Artifact
]:  # fmt: skip
    """A release by the data version of its weights, and these. wanted_by: the asset. Raises
    `InputError` where they are no longer in the store."""
    history = ReleaseLog(home, name).read()
    number = history.released_as(checkpoint)
    candidate = None if number is None else history.releases[number].candidate
    if number is None or candidate is None:
        raise InputError(f"{wanted_by} takes weights that were never released as {name}: run again")
    return candidate, weights_of(home, name, number, candidate, wanted_by)


def weights_of(
    home: Home, name: str, number: int, candidate: Candidate, wanted_by: str
) -> Artifact:
    """The weights of a release. Raises `InputError` where they are no longer in the store."""
    weights = home.store.open(*candidate.weights)
    if weights is None:
        raise InputError(
            f"{wanted_by} takes the weights of release {number} of {name} ({candidate.shown}), "
            f"which are no longer in the store: {restoring(candidate.experiment)} makes them "
            "again, if nothing of it changed since"
        )
    return weights
