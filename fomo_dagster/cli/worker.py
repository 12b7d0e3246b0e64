"""A process that does a task: alone, or one of several that torchrun starts.

It is forked (`graph/run/processes.py`) or runs as `python -m fomo_dagster.cli.worker TASK`, on this
machine or on another. What it tells goes through Dagster Pipes; why it ended, into files beside the
task.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from dagster_pipes import open_dagster_pipes

from fomo_dagster.cli.output import WarningsTo
from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.heartbeats import HEARTBEAT, wait_for_silence
from fomo_dagster.graph.run.installed import check_expected
from fomo_dagster.graph.run.launching import LAUNCHER, make_here
from fomo_dagster.graph.run.processes import LIVES_WITH, RESULT, STOP
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tasks import Task
from fomo_dagster.models.devices import check_device
from fomo_dagster.progress import Callbacks, ignore_steps
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.lifelines import living, wait_for_end

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_TOLD = 0.1
_LONGEST_WAIT = timedelta(hours=2)  # for another process; torchrun notices one that is lost


def main(path: Path) -> None:
    """Do the task's part of the process that the environment says this is."""
    rank, here = int(os.environ["RANK"]), path.parent
    with _alive(here, rank):
        try:
            check_expected(socket.gethostname())
            task = Task.read(path)
            for number in _SIGNALS:
                signal.signal(number, _interrupt)
            _watch(here, launched_here=task.host == socket.gethostname())
            threads = task.threads or torch.get_num_threads() // task.sharing
            torch.set_num_threads(max(1, threads))
            with _telling(here, rank, task) as callbacks:
                result: dict[str, Any] = {"cost": _work(task, here, callbacks)}
        except KeyboardInterrupt as stop:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            result = {"stopped": str(stop) or "interrupted"}
        except Exception as error:
            said = {"kind": type(error).__name__, "message": str(error)}
            write_bytes(here / f"failed_{rank:05d}", json.dumps(said).encode())
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # without waiting for what the others will never send
        if rank == 0:
            write_bytes(here / RESULT, json.dumps(result).encode())


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop where the work stands, but where it stops already: processes that train together do so
    as soon as one of them was asked, and the others are still asked, each for itself."""
    if not isinstance(sys.exception(), KeyboardInterrupt):
        raise KeyboardInterrupt(signal.Signals(number).name)


def _work(task: Task, here: Path, callbacks: Callbacks) -> dict[str, Any]:
    graph = task.graph()
    node, device = _on_own_device(graph.nodes[task.key])
    if task.folder is None:
        context = RunContext(graph, task.home, callbacks=callbacks, processes=task.processes)
        for number, (name, recipe) in enumerate(task.recipes(node, context).items()):
            if _is_first_to(here / f"taken_{number}"):
                context.get_or_make(
                    recipe,
                    lambda folder, name=name, recipe=recipe: make_here(  # type: ignore[misc]
                        node, name, recipe, folder, context
                    ),
                )
        return {}
    if int(os.environ["WORLD_SIZE"]) == 1:
        context = RunContext(graph, task.home, callbacks=callbacks, processes=task.processes)
        ((name, recipe),) = task.recipes(node, context).items()
        return make_here(node, name, recipe, task.folder, context)
    with _group(device) as group:
        context = RunContext(graph, task.home, callbacks=callbacks, group=group)
        ((name, recipe),) = task.recipes(node, context).items()
        return dict(node.make(name, recipe, task.folder, context) or {})


def _on_own_device(node: Node) -> tuple[Node, torch.device]:
    """The node as it is executed by this process, and its device: of those that it sees, which are
    what was claimed for it, the one of its place."""
    execution, number = node.parallelism, int(os.environ["LOCAL_RANK"])
    if execution is None:
        return node, torch.device("cpu")
    name = execution.device
    if name.startswith("cuda") or (name == "auto" and torch.cuda.is_available()):
        check_device("cuda", execution.processes)
        name = f"cuda:{number}"
        torch.cuda.set_device(number)
    elif name == "auto":
        name = "cpu"
    own = execution.model_copy(update={"device": name})
    return replace(node, execution=own), torch.device(name)  # type: ignore[call-arg]


@contextlib.contextmanager
def _group(device: torch.device) -> Iterator[ProcessGroup]:
    """The processes that torchrun started, joined: by NCCL on CUDA, by Gloo on the CPU."""
    on_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_cuda else "gloo",
        timeout=_LONGEST_WAIT,
        device_id=device if on_cuda else None,
    )
    control = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT) if on_cuda else None
    yield ProcessGroup(dist.get_rank(), dist.get_world_size(), control)
    dist.destroy_process_group()  # not after a failure, when it may wait for ever


@contextlib.contextmanager
def _telling(here: Path, rank: int, task: Task) -> Iterator[Callbacks]:
    """The callbacks of this process. The first tells all at once; the others tell warnings alone,
    at the end."""
    warned: list[str] = []
    root = logging.getLogger()
    if rank > 0:
        root.addHandler(WarningsTo(warned.append))
        yield Callbacks(warn=warned.append)
        if warned:
            write_bytes(here / f"warned_{rank:05d}", json.dumps(warned).encode())
        return
    with open_dagster_pipes() as pipes:

        def warn(text: str) -> None:
            pipes.report_custom_message({"warning": text})

        if int(os.environ["WORLD_SIZE"]) > 1:
            pipes.log.info(
                f"{os.environ['WORLD_SIZE']} processes, {os.environ['LOCAL_WORLD_SIZE']} a machine"
            )
        root.addHandler(WarningsTo(warn))

        def steps(asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
            pipes.report_custom_message({"steps": [asset, digest, rows]})

        yield Callbacks(
            progress=_Throttled(pipes.report_custom_message),
            steps=steps if task.tells_steps else ignore_steps,
            warn=warn,
        )


class _Throttled:
    """Progress as messages, not more of them than anyone can see."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send, self._last = send, 0.0

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if done >= total or now - self._last >= _SECONDS_BETWEEN_TOLD:
            self._last = now
            self._send({"progress": [what, done, total, detail]})


@contextlib.contextmanager
def _alive(here: Path, rank: int) -> Iterator[None]:
    """Hold this process' lifeline, by which the launcher sees that it lives."""
    with living(here / f"process_{rank:05d}@{socket.gethostname()}"):
        yield


def _watch(here: Path, *, launched_here: bool) -> None:
    """End with the launcher, or with what started this on another machine, and be interrupted where
    it asks to stop. Where neither lives on this machine, whose locks may mean nothing elsewhere,
    torchrun's agents end with each other."""
    lives_with = os.environ.get(LIVES_WITH) or (here / LAUNCHER if launched_here else None)

    def end_with_launcher() -> None:
        assert lives_with is not None
        wait_for_end(Path(lives_with))
        os._exit(1)

    def stop_when_asked() -> None:
        while not (here / STOP).exists():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.Signals[(here / STOP).read_text()])

    def end_with_heartbeat() -> None:
        wait_for_silence(here, os.environ[HEARTBEAT])
        os._exit(1)

    if HEARTBEAT in os.environ:
        threading.Thread(target=end_with_heartbeat, daemon=True).start()
    if lives_with is not None:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    threading.Thread(target=stop_when_asked, daemon=True).start()


def _is_first_to(path: Path) -> bool:
    """Whether no other process had taken what the file stands for."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
