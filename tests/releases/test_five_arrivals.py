"""A model in production, from the first arrival to a rollback, as docs/releases.md tells it."""

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli import planning
from fomo_dagster.cli.main import app
from fomo_dagster.home import Home
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.tables.views import query
from tests.releases.five_arrivals import ARRIVALS, arrive, write_project

pytestmark = [pytest.mark.slow, pytest.mark.journey]


@pytest.fixture
def fomo(tmp_path, monkeypatch):
    """Commands in a project of their own."""
    root = tmp_path / "shop"
    write_project(root)
    for name, value in (("FOMO_PROJECT", root), ("FOMO_HOME", root / ".fomo")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("DAGSTER_HOME", str(root / ".fomo/dagster"))
    for variable in ("FOMO_STORE", "FOMO_TRACKERS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(planning, "_said", set())

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run.root = root
    return run


def test_the_gates_refuse_exactly_what_must_not_go_live(fomo, plots):
    home, days = Home(fomo.root / ".fomo"), list(ARRIVALS)
    arrive(fomo.root, days[0])
    fomo("run", "daily")
    assert "release 1 (daily, stage 1) is live as shop" in fomo("promote", "daily", "--first")
    for day in days[1:]:
        arrive(fomo.root, day)
    fomo("run", "daily")  # judges them in their order, as if each had come alone
    history = ReleaseLog(home, "shop").read()
    assert [(r.kind, r.candidate.stage) for r in history.records] == [
        ("release", 1), ("refusal", 2), ("refusal", 3), ("release", 4), ("release", 5),
    ]  # fmt: skip
    failed = query(home.root, "SELECT stage, gate FROM gates WHERE NOT passed AND stage > 1")
    assert failed.filter(stage=2)["gate"].to_list() == ["knowledge"]
    assert "data: leakage" in failed.filter(stage=3)["gate"]
    assert history.live == 3
    said = fomo("rollback", "shop", "--reason", "the letters are wrong")
    assert "licence of daily_2026_11_02 (not declared), daily_2026_11_05 (not declared)" in said
    live = query(home.root, "SELECT arg_max(live, entry) FROM releases WHERE name = 'shop'")
    assert live.item() == 2
    when = history.records[3].recorded_at
    then = f"SELECT arg_max(live, entry) FROM releases WHERE recorded_at <= '{when}'"
    assert query(home.root, then).item() == 2
    lineage = history.release(2).candidate.lineage
    assert "daily/trained_004" in lineage
    assert not {"daily/trained_002", "daily/trained_003"} & lineage.keys()
