"""What is said beside a comparison's numbers."""

import pytest

from fomo_dagster.statistics.comparison import Comparison, Scored
from fomo_dagster.statistics.intervals import Interval
from fomo_dagster.tables.comparisons import remarks_of


@pytest.mark.parametrize(
    ("estimate", "error_of_samples", "said"),
    [
        (1.0, 0.4, "GM: too little to tell; a difference of 1.00 points would take about 10 "),
        (0.01, 0.0, "GM: too little to tell; a difference of 0.01 points would take more than"),
        (1.0, 0.6, "GM: too little to tell, and more replicates would not do: it takes more test"),
        (0.0, 0.6, None),
    ],
)  # fmt: skip
def test_what_it_takes_to_tell_is_said_for_what_it_is(estimate, error_of_samples, said):
    difference = Interval(estimate, -2, 2, 5, 1.0, 1.0, error_of_samples, 4, 0.5)
    scored = Scored("geometric_mean", 50 + estimate, 50, difference)
    remarks = remarks_of(Comparison("b", "a", 5, 100, (scored,), (), 0.5))
    assert difference.p > 0.05
    found = [one for one in remarks if "too little" in one]
    assert [one[: len(said)] for one in found] == [said] if said else found == []
