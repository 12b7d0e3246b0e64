"""`fomo` as processes that can be watched, signalled and killed; see `nursery`."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fomo_dagster.graph.run.processes import OUTPUT

NURSERY = Path(__file__).with_name("nursery.py")


@pytest.fixture
def undrawn(monkeypatch):
    """The curves of a stage are not drawn; tests/plots/test_training_plot.py draws them."""
    monkeypatch.setattr("fomo_dagster.graph.work.stage.training_plot", lambda _: b"")


class Child:
    """A process that the nursery forked."""

    def __init__(self, nursery, request):
        self.nursery = nursery
        self.ended = None  # its status: another process may have its number by now
        self.process = nursery.ask(request)["process"]

    def has_ended(self):
        try:
            return (
                Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            )
        except FileNotFoundError:
            return True

    def send(self, number, *, as_terminal=False):
        """as_terminal: to all that it started too, as Ctrl-C is."""
        (os.killpg if as_terminal else os.kill)(self.process, number)

    def wait(self):
        """Wait for its end; the exit status, negative for the signal that killed it."""
        if self.ended is None:
            self.ended = self.nursery.ask({"wait": self.process})["status"]
        return self.ended

    def poll(self, within=0.0):
        deadline = time.monotonic() + within
        while self.ended is None and not self.has_ended():
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
        return self.wait()

    def kill(self):
        self.send(signal.SIGKILL)


class Fomo(Child):
    """One process of `fomo` with the arguments given."""

    def __init__(self, nursery, project, arguments, number, watch, environment, whole):
        self.log = project.root / f"output_{number}.txt"
        self.pipe = project.root / f"pipe_{number}"
        request = {
            "program": "fomo",
            "arguments": arguments,
            "folder": str(project.root),
            "output": str(self.log),
            "environment": {**os.environ, **(environment or {})},
            "whole": whole,
        }
        if watch is not None:
            mark, count, pause = watch
            request |= {"mark": mark, "count": count, "pause": pause}
            os.mkfifo(self.pipe)
            request["pipe"] = str(self.pipe)
        super().__init__(nursery, request)

    def sign(self, seconds=60):
        """What it is about to do at the moment asked for; empty where it ended before that."""
        found = []
        reader = threading.Thread(target=lambda: found.append(self.pipe.read_text()), daemon=True)
        reader.start()
        for _ in range(seconds * 20):
            reader.join(0.05)
            if found:
                return found[0]
            if self.has_ended():
                with open(self.pipe, "w"):
                    pass
        raise TimeoutError("no sign came")

    def kill(self):
        super().kill()
        assert self.wait() == -signal.SIGKILL

    @property
    def output(self):
        return self.log.read_text()


class Nursery:
    def __init__(self):
        ours, theirs = socket.socketpair()
        command = [sys.executable, str(NURSERY), str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self.socket = ours
        self.lines = ours.makefile("rw")
        self.lock = threading.Lock()
        self.started = []

    def ask(self, request):
        with self.lock:
            self.lines.write(json.dumps(request) + "\n")
            self.lines.flush()
            return json.loads(self.lines.readline())

    def start(self, project, *arguments, watch=None, environment=None, whole=False):
        """watch: (mark, count, pause), the moment at which it is to give a sign and pause.
        environment: variables that it has besides those of this process. whole: with real plots,
        and the operations of stages counted."""
        number = len(self.started)
        self.started.append(Fomo(self, project, arguments, number, watch, environment, whole))
        return self.started[-1]

    def launch(self, command, here, environment):
        """`processes.launched` for torchrun's command, without seconds of imports."""
        request = {
            "program": "agent",
            "arguments": command[3:],  # after `python -m fomo_dagster.cli.agent`
            "folder": os.getcwd(),
            "output": str(here / OUTPUT),
            "environment": {**os.environ, **environment},
        }
        self.started.append(Child(self, request))
        return self.started[-1]

    def run(self, project, *arguments, **options):
        """Status and output of a `fomo` that is left to its end."""
        fomo = self.start(project, *arguments, **options)
        return fomo.wait(), fomo.output

    def close(self):
        for child in self.started:
            if child.ended is None and not child.has_ended():
                child.kill()
        self.lines.close()
        self.socket.close()
        self.process.kill()  # it has nothing to finish
        self.process.wait()


@pytest.fixture(scope="session")
def nursery():
    made = Nursery()
    yield made
    made.close()
