"""What cleaning leaves: the weights of every release, as any may be gone back to."""

from fomo_dagster.releases.promoting import promote, refuse, roll_back
from fomo_dagster.store.cleaning import clean, what_goes
from tests.releases.conftest import LOST, PASSED, stage


def test_weights_of_releases_stay_and_those_that_were_refused_go(log, home):
    first, second, bad = (stage(home, number) for number in (1, 2, 3))
    promote(log, first, [PASSED], None, "manual", first=True)
    promote(log, second, [PASSED], 1, "manual")
    refuse(log, bad, [LOST], 2)
    assert set(what_goes(home.root, home.store).artifacts) == {bad.weights}
    assert set(clean(home.root, home.store).artifacts) == {bad.weights}
    roll_back(log)
    assert log.read().live == 1
    assert home.store.open(*second.weights) is not None
