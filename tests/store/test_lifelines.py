"""Lifelines: a process is seen to live until it ends, with locks of the kernel or without."""

import errno
import fcntl
import os
import signal
import threading
import time

import pytest

from fomo_dagster.store.lifelines import has_ended, living, wait_for_end


@pytest.fixture(params=["locks", "no locks"], autouse=True)
def way(request, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if request.param == "no locks":
        monkeypatch.setattr(fcntl, "flock", refuse)


def test_who_leaves_is_seen_to_have_ended_although_its_process_lives(tmp_path):
    path = tmp_path / "line"
    with living(path):
        assert not has_ended(path)
        began = time.monotonic()
        wait_for_end(path, began + 0.1)
        assert time.monotonic() >= began + 0.1
        waiting = threading.Thread(target=wait_for_end, args=(path,))
        waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
    path.unlink()
    assert has_ended(path)


@pytest.mark.kill
def test_a_killed_process_is_seen_to_have_ended(tmp_path):
    path, ready = tmp_path / "line", tmp_path / "ready"
    child = os.fork()
    if child == 0:
        with living(path):
            ready.touch()
            time.sleep(60)
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    assert not has_ended(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert has_ended(path)
