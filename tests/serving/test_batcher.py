"""Every request gets exactly its own rows, whatever comes beside it."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.serving.batcher import Batcher


def doubled(kind, rows):
    return rows * (2 if kind == "images" else 3)


def closing(batcher):
    class Closing:
        def __enter__(self):
            return batcher

        def __exit__(self, *_):
            batcher.close()

    return Closing()


class Gate:
    """A model that waits until it is let go on, and notes its batches."""

    def __init__(self):
        self.batches, self.begun, self.go_on = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, kind, rows):
        self.batches.append((kind, rows[:, 0].tolist()))
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        return rows


@given(
    st.lists(st.tuples(st.sampled_from(["images", "texts"]), st.integers(1, 9)), max_size=30),
    st.integers(1, 7), st.integers(1, 4),
)  # fmt: skip
def test_each_request_gets_its_own_rows_in_any_interleaving(requests, most_rows, clients):
    sizes = []
    batcher = Batcher(
        doubled, most_rows=most_rows, wait_seconds=0.0005,
        on_batch=lambda kind, rows, seconds: sizes.append(rows),
    )  # fmt: skip
    starts = np.cumsum([0, *(count for _, count in requests)])

    def ask(place):
        kind, count = requests[place]
        rows = np.arange(starts[place], starts[place] + count, dtype=float)[:, None]
        return kind, rows, batcher.submit(kind, rows).result(timeout=10)

    with closing(batcher), ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(len(requests))))
    for kind, rows, found in answers:
        np.testing.assert_array_equal(found, doubled(kind, rows))
    assert sum(sizes) == sum(count for _, count in requests)
    assert max(sizes, default=0) <= most_rows


@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 5),
)  # fmt: skip
def test_cancelled_requests_and_failing_batches_touch_nobody_else(requests, most_rows):
    """Of (rows, is cancelled, is poison) each request ends in its rows, or its own reason."""
    batches = []

    def run(kind, rows):
        batches.append(set(rows[:, 0].tolist()))
        if (rows[:, 1] > 0).any():
            raise ArithmeticError("poison")
        return rows

    gate, first = threading.Event(), threading.Event()

    def gated(kind, rows):
        first.set()
        assert gate.wait(10)
        return run(kind, rows)

    batcher = Batcher(gated, most_rows=most_rows, wait_seconds=0)
    with closing(batcher):
        plug = batcher.submit("images", np.array([[-1.0, 0.0]]))
        assert first.wait(10)
        rows = [
            np.column_stack([np.full(count, float(place)), np.full(count, float(poison))])
            for place, (count, _, poison) in enumerate(requests)
        ]
        futures = [batcher.submit("images", one) for one in rows]
        for future, (_, is_cancelled, _) in zip(futures, requests, strict=True):
            assert not is_cancelled or future.cancel()
        gate.set()
        plug.result(timeout=10)
        for place, future in enumerate(futures):
            _, is_cancelled, is_poison = requests[place]
            if is_cancelled:
                assert future.cancelled()
                assert not any(place in batch for batch in batches)
            elif is_poison:
                with pytest.raises(ArithmeticError, match="poison"):
                    future.result(timeout=10)
            else:
                try:
                    np.testing.assert_array_equal(future.result(timeout=10), rows[place])
                except ArithmeticError:  # only of a batch that it shared
                    poison = {n for n, (_, _, is_one) in enumerate(requests) if is_one}
                    assert any(place in batch and batch & poison for batch in batches)
        assert batcher.waiting == 0


def test_what_comes_while_a_batch_runs_goes_into_the_next_one_together():
    model = Gate()
    with closing(Batcher(model, most_rows=8, wait_seconds=0)) as batcher:
        futures = [batcher.submit("images", np.array([[0.0]]))]
        assert model.begun.acquire(timeout=10)
        futures += [batcher.submit("images", np.array([[float(n)]])) for n in (1, 2, 3)]
        assert batcher.waiting == 3
        model.go_on.release(2)
        assert [future.result(timeout=10)[0, 0] for future in futures] == [0, 1, 2, 3]
    assert model.batches == [("images", [0]), ("images", [1, 2, 3])]


def test_a_large_request_lets_what_came_meanwhile_go_between():
    model = Gate()
    with closing(Batcher(model, most_rows=2, wait_seconds=0)) as batcher:
        large = batcher.submit("texts", np.arange(6.0)[:, None])
        assert model.begun.acquire(timeout=10)
        small = batcher.submit("texts", np.array([[9.0]]))
        model.go_on.release(4)
        assert small.result(timeout=10) == [[9.0]]
        assert large.result(timeout=10)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert [rows for _, rows in model.batches] == [[0, 1], [2, 3], [9, 4], [5]]


def test_a_batch_waits_for_more_no_longer_than_it_was_told():
    batches = []
    run = lambda kind, rows: batches.append(len(rows)) or rows  # noqa: E731
    with closing(Batcher(run, most_rows=2, wait_seconds=0.2)) as batcher:
        started = time.monotonic()
        batcher.submit("images", np.zeros((1, 1))).result(timeout=10)
        assert time.monotonic() - started >= 0.2
        both = [batcher.submit("images", np.zeros((1, 1))) for _ in range(2)]
        started = time.monotonic()
        for one in both:
            one.result(timeout=10)
        assert time.monotonic() - started < 0.15  # full at once
    assert batches == [1, 2]


def test_closing_finishes_what_was_submitted_and_takes_no_more():
    batcher = Batcher(doubled, most_rows=2, wait_seconds=60)
    futures = [batcher.submit("images", np.full((1, 1), float(n))) for n in range(5)]
    batcher.close()
    assert [future.result(timeout=0)[0, 0] for future in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("images", np.zeros((1, 1)))


def test_a_model_that_loses_rows_fails_the_batch_and_not_the_thread():
    answers = iter([np.zeros((1, 1)), np.ones((2, 1))])
    with closing(Batcher(lambda *_: next(answers), most_rows=2, wait_seconds=0)) as batcher:
        with pytest.raises(RuntimeError, match="2 images gave 1 results"):
            batcher.submit("images", np.zeros((2, 1))).result(timeout=10)
        assert batcher.submit("images", np.zeros((2, 1))).result(timeout=10).tolist() == [[1], [1]]


def test_a_request_of_which_a_part_ran_cannot_be_cancelled_and_one_that_waits_can():
    model = Gate()
    with closing(Batcher(model, most_rows=1, wait_seconds=0)) as batcher:
        begun = batcher.submit("images", np.zeros((2, 1)))
        assert model.begun.acquire(timeout=10)
        waits = batcher.submit("images", np.ones((1, 1)))
        assert not begun.cancel()
        assert waits.cancel()
        model.go_on.release(2)
        assert len(begun.result(timeout=10)) == 2
        with pytest.raises(CancelledError):
            waits.result(timeout=0)
    assert len(model.batches) == 2
