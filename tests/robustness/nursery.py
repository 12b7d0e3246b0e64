"""A process that imports what `fomo` needs once, and forks a `fomo` of its own for each request.

Each child is what a fresh interpreter would be, without seconds of imports: it runs the command's
real entry point, and dies of real signals. Requests and answers are lines of JSON on a socket. In
the same way it is torchrun's agent, which then forks its workers as well; and the process that
forks for `multiprocessing` is forked from it too.

A request may name a moment: before its `count`-th file-system operation on a path that contains
`mark`, the child writes what it is about to do to `pipe`, and pauses for `pause` seconds.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver, util
from pathlib import Path

from PIL import Image


def main() -> None:
    import matplotlib.figure  # noqa: F401
    import open_clip  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import torch.distributed.run  # noqa: F401
    import torchvision.transforms  # noqa: F401

    import fomo_dagster.cli.main
    import fomo_dagster.cli.running
    import fomo_dagster.cli.worker
    import fomo_dagster.evaluation.evaluate
    import fomo_dagster.graph.work.stage
    import fomo_dagster.plots.contact_sheet
    import fomo_dagster.plots.scores
    import fomo_dagster.tables.views  # noqa: F401
    from fomo_dagster.graph.run.processes import _PRELOADED

    for name in _PRELOADED:
        importlib.import_module(name)
    requests = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
    for line in requests:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            child = os.fork()
            if child == 0:
                be(fomo if request["program"] == "fomo" else agent, request)
            answer = {"process": child}
        requests.write(json.dumps(answer) + "\n")
        requests.flush()


def be(program: Callable[[list[str]], object], request: dict) -> None:
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if "mark" in request:
        tell_at(request["mark"], request["count"], request["pause"], request["pipe"])
    if not request.get("whole", True):
        spare()
    status: object = 1
    try:
        status = program(request["arguments"])
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1 if status else 0)


def spare() -> None:
    """Leave out what takes much of a toy's run and matters to few tests: plots are blank, and the
    operations of a stage are not counted."""
    from matplotlib.figure import Figure

    from fomo_dagster.graph.work import stage

    blank = io.BytesIO()
    Image.new("RGB", (12, 10)).save(blank, "PNG")
    Figure.savefig = lambda _, file, **__: file.write(blank.getvalue())  # type: ignore[assignment]
    stage.training_plot = lambda *_: blank.getvalue()
    stage.training_flops = lambda *_: {}


def fomo(arguments: list[str]) -> object:
    from fomo_dagster.cli.main import main

    fork_what_forks()
    sys.argv = ["fomo", *arguments]
    return main()


def fork_what_forks() -> None:
    """Fork now, while there are no threads, what `multiprocessing` would start as an interpreter of
    its own: the process that forks its workers. It ends with this one if it is not asked for."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # not its end, as it is not that of the other
        command, descriptors, _, _ = socket.recv_fds(theirs, 1 << 20, 2)
        theirs.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if command:  # a call of the module's `main`, with the numbers that they have over there
            call = command.decode().partition("; ")[2]
            eval(call, {"main": lambda _, __, names, **data: forkserver.main(*descriptors, names)})
        sys.exit(0)
    theirs.close()
    spawn = util.spawnv_passfds

    def spawned(path: str, arguments: list[str], descriptors: list[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1] or ours.fileno() < 0:
            return spawn(path, arguments, descriptors)
        socket.send_fds(ours, [arguments[-1].encode()], descriptors)
        ours.close()
        return child

    util.spawnv_passfds = spawned


def agent(arguments: list[str]) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    import fomo_dagster.cli.agent as own

    subprocess_handler.Popen = Worker
    own.rendezvous_handler_registry.register(own.BACKEND, own.Meeting)
    run.main(arguments)


class Worker:
    """What torchrun's agent uses of a `Popen`, for a fork that does what its command says."""

    def __init__(self, args: tuple[str, ...], env: dict[str, str], **_: object) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=worker, args=(args[-1], env))
        self._process.start()
        self.pid = self._process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it was faster, or is gone
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self._process.exitcode


def worker(task: str, environment: dict[str, str]) -> None:
    from fomo_dagster.cli.worker import main

    with contextlib.suppress(PermissionError):  # the agent was faster
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # not the agent's handlers
    os.environ.clear()
    os.environ.update(environment)
    main(Path(task))


def tell_at(mark: str, count: int, pause: float, pipe: str) -> None:
    left = [count]
    me = os.getpid()

    def hook(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if left[0] <= 0 or os.getpid() != me:
            return
        if not any(isinstance(a, str | os.PathLike) and mark in str(a) for a in arguments):
            return
        left[0] -= 1
        if left[0] == 0:
            with open(pipe, "w") as sign:
                sign.write(f"{event} {arguments[0]}\n")
            time.sleep(pause)

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
