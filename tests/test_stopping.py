"""Threads that were asked to stop do so where they wait or tell their progress, and only they."""

import threading

import pytest

from fomo_dagster import stopping
from fomo_dagster.progress import Callbacks, heeding
from fomo_dagster.stopping import Stop, check
from fomo_dagster.store.leases import lease


def test_work_stops_at_its_next_progress_and_the_first_signal_is_named():
    stop, told = Stop(), []
    callbacks = heeding(Callbacks(progress=lambda *said: told.append(said)))
    with stop.heeded():
        callbacks.progress("work", 1, 3)
        stop.request("SIGTERM")
        stop.request("SIGINT")
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            callbacks.progress("work", 2, 3)
    callbacks.progress("work", 3, 3)
    assert [done for _, done, *_ in told] == [1, 3]


def test_a_second_request_insists_unless_it_is_the_same_one(monkeypatch):
    stop, now = Stop(), iter((10.0, 10.9, 11.0))
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(now))
    for is_insisted_on in (False, False, True):
        stop.request("SIGINT")
        assert stop.is_insisted_on is is_insisted_on


def test_who_waits_for_a_lease_stops_waiting(tmp_path):
    stop, ended = Stop(), []

    def wait():
        try:
            with stop.heeded(), lease(tmp_path / "lease"):
                ended.append("held")
        except KeyboardInterrupt as error:
            ended.append(str(error))

    thread = threading.Thread(target=wait)
    with lease(tmp_path / "lease"):
        thread.start()
        stop.request("SIGTERM")
        thread.join(20)
        assert ended == ["SIGTERM"]


def test_nothing_begins_that_was_stopped_before_and_other_threads_go_on():
    stop = Stop()
    stop.request("SIGHUP")
    with pytest.raises(KeyboardInterrupt, match="SIGHUP"), stop.heeded():
        pytest.fail("it began")
    check()
