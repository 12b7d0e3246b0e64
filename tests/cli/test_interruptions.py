"""Signals that ask to stop: which are heard, and that what is ignored stays so."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
import weakref

import pytest

from fomo_dagster.cli.interruptions import Signals
from fomo_dagster.training.interruption import STOPPING, Interruption, leave_terminal

pytestmark = pytest.mark.kill


@pytest.fixture(autouse=True)
def terminal_of_these_tests(monkeypatch):
    """It stays where they print to."""
    for module in ("fomo_dagster.training.interruption", "fomo_dagster.cli.interruptions"):
        monkeypatch.setattr(f"{module}.leave_terminal", lambda: None)


@pytest.fixture(params=[False, True], ids=["heard", "ignored"])
def hangup(request):
    """Whether SIGHUP is ignored, as nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if request.param else signal.SIG_DFL)
    yield request.param
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", STOPPING)
def test_a_command_hears_each_signal_by_its_own_name(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert signals.received is number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", STOPPING)
def test_a_training_notes_each_signal_by_its_own_name(number):
    with pytest.raises(KeyboardInterrupt, match=number.name), Interruption():
        signal.raise_signal(number)


@pytest.mark.parametrize("within", [Signals, Interruption])
def test_a_hangup_that_is_ignored_stays_ignored(hangup, within):
    if hangup:
        with within() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    else:
        with pytest.raises(KeyboardInterrupt), within():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.parametrize("is_closed_when_told", [False, True])
def test_what_is_printed_after_the_terminal_was_closed_is_no_error(is_closed_when_told):
    child = os.fork()
    if child == 0:
        terminal, line = pty.openpty()
        for descriptor in (1, 2):
            os.dup2(line, descriptor)
        os.close(line)
        if is_closed_when_told:
            os.close(terminal)
        leave_terminal()
        if not is_closed_when_told:
            os.close(terminal)
        os.write(1, b"nobody reads it")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_whose_exception_python_drops_is_sent_again(number):
    class Collected:
        pass

    thing = Collected()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    with Signals() as signals:
        del thing  # what a callback of a weak reference raises, nobody catches
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
        assert signals.received == number
    assert reference() is None


@pytest.mark.parametrize("number", STOPPING)
def test_signals_of_one_request_to_stop_a_training_count_as_one(monkeypatch, number):
    interruption = Interruption()
    with contextlib.suppress(KeyboardInterrupt), interruption:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        assert interruption.received == number.name
        monkeypatch.setattr("fomo_dagster.training.interruption.SECONDS_OF_ONE_REQUEST", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert interruption.received == number.name


RUN = """
import sys, time
try:
    print("a run", flush=True)
    time.sleep(20)
except KeyboardInterrupt:
    sys.stdout.write("the run ends\\n")
"""
DEV = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {RUN!r}])
try:
    time.sleep(20)
except KeyboardInterrupt:
    sys.stdout.write(" ".join([*sys.argv[1:], "ends\\n"]))  # in one piece, as others write too
"""  # hands no signal on, as `dagster dev`


@pytest.mark.parametrize("number", [*STOPPING, signal.SIGKILL])
def test_a_signal_to_the_ui_alone_ends_its_servers_and_runs(tmp_path, number):
    package = tmp_path / "dagster"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(DEV)
    ui = subprocess.Popen(
        [sys.executable, "-m", "fomo_dagster.cli.ui_process", "dev", "-p", "3000"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ui.stdout is not None
    assert ui.stdout.readline() == "a run\n"
    ui.send_signal(number)
    said, _ = ui.communicate(timeout=15)
    assert sorted(said.splitlines()) == ["dev -p 3000 ends", "the run ends"]
    assert ui.returncode == (-number if number == signal.SIGKILL else 128 + number)
