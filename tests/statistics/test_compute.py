import pytest

from fomo_dagster.statistics.compute import saving


def test_a_saving_is_read_off_the_straight_lines_between_points():
    # The other ends at 40, which the first reaches halfway between 30 at 100 and 50 at 200.
    found = saving([0, 100, 200], [20, 30, 50], [0, 300, 600], [20, 35, 40])
    assert (found.level, found.cost, found.of_other) == (40, 150, 600)
    assert found.times_less == 4
    turned = saving([0, 300, 600], [20, 35, 40], [0, 100, 200], [20, 30, 50])
    assert turned.times_less == pytest.approx(1 / 4)


def test_what_is_reached_first_counts_though_it_is_lost_again():
    found = saving([0, 1, 2, 3], [0, 10, 4, 9], [0, 2], [0, 5])
    assert (found.level, found.cost) == (5, 0.5)


def test_where_one_costs_nothing_there_is_no_saving():
    assert saving([0, 1], [30, 20], [0, 1], [30, 40]) is None
    assert saving([], [], [0, 1], [30, 40]) is None
