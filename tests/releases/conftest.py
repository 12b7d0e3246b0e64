"""Homes with nothing in them, and stages that nobody trained."""

import pytest

from fomo_dagster.home import Home
from fomo_dagster.releases.records import Candidate, ReleaseLog
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.store.recipes import Recipe

PASSED = Verdict("knowledge", True, "not below release 1", "KA +1.00 (+0.10 to +1.90): fine")
LOST = Verdict("retention", False, "at most 0.5 below", "ZS −3.00 (−4.00 to −2.00): lost")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def log(home):
    return ReleaseLog(home, "search")


def stage(home, number, experiment="daily"):
    """A candidate whose weights are in the store."""
    recipe = Recipe("trained", 1, {"experiment": experiment, "stage": number})
    artifact = home.store.get_or_make(recipe, lambda folder: (folder / "weights").touch())
    return Candidate(
        experiment=experiment,
        stage=number,
        checkpoint=artifact.digest,
        weights=(artifact.kind, artifact.digest),
        backbone={"name": "toy"},
        evaluations={"birds": f"{number:032x}"},
        scores={"knowledge_accumulation": 10.0 + number},
        lineage={f"{experiment}/trained_{number:03d}": artifact.digest},
    )
