"""Order and duration of assets side by side, against what is true of every list schedule."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.schedule import (
    Work,
    priorities,
    priorities_of_all,
    remaining_seconds,
    schedule,
    works_of,
)

SECONDS = st.integers(0, 20).map(float)  # whole, so that sums are exact
ANY_DEVICES, ONE_DEVICE = st.integers(0, 3), st.just(1)
ROUNDING = 1e-9


@st.composite
def graphs(draw, devices=ANY_DEVICES):
    """Works, each after some of those before it."""
    works = []
    for number in range(draw(st.integers(1, 25))):
        after = draw(st.sets(st.integers(0, max(0, number - 1)), max_size=3)) if number else ()
        works.append(
            Work(
                key=f"asset_{number}", seconds=draw(SECONDS), devices=draw(devices),
                after=tuple(f"asset_{other}" for other in after),
            )
        )  # fmt: skip
    return works


def longest_from(key, works):
    """By trying all chains."""
    followers = [work.key for work in works if key in work.after]
    own = next(work.seconds for work in works if work.key == key)
    return own + max((longest_from(follower, works) for follower in followers), default=0.0)


@given(graphs(), st.integers(3, 8))
def test_nothing_starts_before_what_it_needs_or_beyond_the_slots(works, slots):
    starts = schedule(works, slots).starts
    ends = {work.key: starts[work.key] + work.seconds for work in works}
    assert starts.keys() == {work.key for work in works}
    for work in works:
        assert all(ends[key] <= starts[work.key] for key in work.after)
    for now in starts.values():
        held = sum(w.devices for w in works if starts[w.key] <= now < ends[w.key])
        assert held <= slots


@given(graphs(), st.integers(3, 8))
def test_no_schedule_is_shorter_than_its_longest_chain_or_its_work(works, slots):
    found = schedule(works, slots)
    assert found.critical_seconds == max(longest_from(work.key, works) for work in works)
    assert found.seconds >= max(found.critical_seconds, found.work_seconds / slots - ROUNDING)
    assert found.utilisation <= 1 + ROUNDING


@given(graphs(devices=ONE_DEVICE), st.integers(1, 8))
def test_a_schedule_keeps_within_the_bound_of_list_scheduling(works, slots):
    found = schedule(works, slots)
    assert found.seconds <= found.critical_seconds + found.work_seconds / slots + ROUNDING


@given(graphs(), st.integers(3, 8))
def test_wide_works_waste_less_slots_than_they_hold(works, slots):
    found = schedule(works, slots)
    kept_busy = slots + 1 - max(1, *(work.devices for work in works))
    assert found.seconds <= found.critical_seconds + found.work_seconds / kept_busy + ROUNDING


@given(graphs(devices=ONE_DEVICE))
def test_one_slot_takes_all_the_work_and_many_the_longest_chain(works):
    one, many = schedule(works, 1), schedule(works, len(works))
    assert one.seconds == one.work_seconds == sum(work.seconds for work in works)
    assert many.seconds == many.critical_seconds
    assert list(one.starts) == sorted(one.starts, key=lambda key: int(key.partition("_")[2]))


@given(graphs())
def test_the_critical_path_is_a_chain_of_what_takes_time(works):
    path = schedule(works, 3).critical_path
    assert all(work.seconds for work in path)
    assert sum(work.seconds for work in path) == max(remaining_seconds(works).values())
    before = {work.key: set(work.after) for work in works}
    for work in works:  # of all that it waits for, at any distance
        before[work.key] |= {key for other in work.after for key in before[other]}
    assert all(one.key in before[two.key] for one, two in pairwise(path))


@given(graphs(), st.integers(2, 8))
def test_no_work_goes_before_one_that_has_more_to_follow(works, slots):
    priority = priorities(works, slots)
    assert len(set(priority.values())) == len(works)
    ranked = sorted(works, key=lambda work: -priority[work.key])
    remaining = [longest_from(work.key, works) for work in ranked]
    assert remaining == sorted(remaining, reverse=True)
    places = {work.key: place for place, work in enumerate(works)}
    for one, other in pairwise(ranked):
        if longest_from(one.key, works) == longest_from(other.key, works):
            assert places[one.key] < places[other.key]


def stages(name, count, *, trains=2.0, evaluates=3.0, first=None):
    """The works of an experiment whose stages follow each other."""
    works = [Work(key=f"{name}/evaluation_0", seconds=evaluates, devices=1, after=(first or ()),
                  yields_to=f"{name}/trained_{count}")]  # fmt: skip
    for stage in range(1, count + 1):
        before = (f"{name}/trained_{stage - 1}",) if stage > 1 else (first or ())
        works += [
            Work(key=f"{name}/trained_{stage}", seconds=trains, devices=1, after=before),
            Work(
                key=f"{name}/evaluation_{stage}", seconds=evaluates, devices=1,
                after=(f"{name}/trained_{stage}",),
                yields_to=f"{name}/trained_{count}" if stage < count else None,
            ),
        ]  # fmt: skip
    return works


def test_no_evaluation_delays_a_training_of_its_experiment_however_long_it_takes():
    works = stages("toy", 4, trains=1.0, evaluates=100.0)
    works[-1] = Work(key="toy/evaluation_4", seconds=0.5, devices=1, after=("toy/trained_4",))
    priority = priorities(works, 2)
    assert remaining_seconds(works)["toy/evaluation_3"] > remaining_seconds(works)["toy/trained_4"]
    trainings = [priority[f"toy/trained_{stage}"] for stage in (1, 2, 3, 4)]
    assert min(trainings) > max(priority[f"toy/evaluation_{stage}"] for stage in (0, 1, 2, 3))
    starts = schedule(works, 2).starts
    assert [starts[f"toy/trained_{stage}"] for stage in (1, 2, 3, 4)] == [0, 1, 2, 3]


def test_a_chain_of_stages_trains_beside_its_evaluations():
    found = schedule(stages("toy", 4), 2)
    # θ₀ and the first two stages are evaluated beside the trainings, the others after them.
    assert found.starts["toy/trained_4"] == 6
    assert found.work_seconds == 4 * 2 + 5 * 3
    assert found.seconds == 12
    assert found.critical_seconds == 4 * 2 + 3
    assert found.utilisation == pytest.approx(23 / 24)
    assert [work.key for work in found.critical_path] == [
        "toy/trained_1", "toy/trained_2", "toy/trained_3", "toy/trained_4", "toy/evaluation_4",
    ]  # fmt: skip


def test_on_one_slot_a_sweep_finishes_one_experiment_after_the_other():
    works = [*stages("a", 3), *stages("b", 3)]
    starts = schedule(works, 1).starts
    assert max(s for k, s in starts.items() if k[0] == "a") < starts["b/evaluation_0"]
    on_two = schedule(works, 2).starts
    assert on_two["a/trained_1"] == on_two["b/trained_1"] == 0


def test_forty_experiments_of_twenty_stages_keep_64_slots_as_busy_as_they_can_be():
    works = [Work(key="theta", seconds=30.0, devices=1)]
    for number in range(40):
        works += stages(f"e{number}", 20, trains=60.0, evaluates=90.0, first=("theta",))
    assert len(works) == 1 + 40 * 41
    found = schedule(works, 64)
    longest = max(found.critical_seconds, found.work_seconds / 64)
    assert longest <= found.seconds <= 1.1 * longest


def test_more_devices_than_slots_are_refused_with_the_asset_that_needs_them():
    works = [Work(key="toy/trained_001", seconds=1.0, devices=4)]
    assert schedule(works, 4).seconds == 1
    with pytest.raises(
        InputError, match=r"toy/trained_001 needs 4 devices .* for 2 slots: allow as many"
    ):
        schedule(works, 2)


def planned_works(project, *names):
    graph = build_graph([project.load(name) for name in names])
    nodes = graph.of(*names)
    return {w.key: w for w in works_of(nodes, plan(nodes, RunContext(graph, project.home)))}


def test_what_two_experiments_have_in_common_is_waited_for_by_both(project):
    project.write("other", evaluation={"held_out": ["old"], "subset": 0.5})
    works = planned_works(project, "toy", "other")
    assert "toy/trained_001" in works["other/trained_001"].after
    assert (works["other/trained_001"].devices, works["other/trained_001"].seconds) == (0, 0)
    starts = schedule(list(works.values()), 8).starts
    assert starts["other/trained_003"] == starts["toy/evaluation_003"]


def test_trainings_never_seen_before_still_go_before_evaluations(project):
    works = planned_works(project, "toy")
    assert not works["toy/trained_001"].is_known
    assert {work.seconds for work in works.values() if work.devices} == {1}
    assert {work.seconds for work in works.values() if not work.devices} == {0}
    assert works["toy/evaluation_001"].yields_to == "toy/trained_003"
    assert works["toy/evaluation_003"].yields_to is None
    assert works["leaderboard"].after == ("toy/scores",)
    found = schedule(list(works.values()), 2)
    # θ₀, three stages, the last evaluation
    assert found.seconds == found.critical_seconds == 5
    assert [found.starts[f"toy/trained_00{stage}"] for stage in (1, 2, 3)] == [1, 2, 3]


def test_without_a_plan_the_next_training_goes_before_the_evaluation_of_the_last(project):
    order = priorities_of_all(list(project.graph().nodes.values()), 2)
    keys = ["trained_001", "trained_002", "evaluation_001", "trained_003", "evaluation_002"]
    first = [order[f"toy/{key}"] for key in keys]
    assert first[0] > first[1] > max(first[2:])
    assert first[3] > max(first[2], first[4])


def test_a_kind_never_seen_takes_as_long_as_the_median_of_what_needs_a_device(project):
    graph = project.graph()
    nodes = graph.of("toy")
    seconds = {"trained": 10.0, "backbone": 30.0}
    entries = [
        type(entry)(**{**vars(entry), "estimated_seconds": seconds.get(entry.kind)})
        for entry in plan(nodes, RunContext(graph, project.home))
    ]
    works = {work.key: work for work in works_of(nodes, entries)}
    assert works["toy/evaluation_001"].seconds == 10  # of 10, 10, 10, 30
    assert (works["toy/evaluation_001"].is_known, works["toy/trained_001"].is_known) == (0, 1)
    assert works["shards/birds"].seconds == 0
