"""Work in processes of its own: one, or several that share it. None is ever left behind.

The launching process and the workers communicate through a folder in FOMO_HOME: the task, a sign to
stop, and the result. Its files say who is alive (see `store.lifelines`). Workers end when their
launcher does, and the launcher returns when they have ended, however any of them ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.errors import (
    DataError,
    FomoError,
    InputError,
    StoreError,
    TrainingError,
)
from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.clusters import Launch, MachineLostError
from fomo_dagster.graph.run.devices import Claim, Lent
from fomo_dagster.graph.run.processes import LOST, OUTPUT, RESULT, STOP, TASK, WORKER, Started
from fomo_dagster.graph.run.tasks import Task, as_data
from fomo_dagster.progress import ignore_steps
from fomo_dagster.stopping import check, check_condition
from fomo_dagster.store.files import explained, write_bytes
from fomo_dagster.store.leases import lease
from fomo_dagster.store.lifelines import living, wait_for_end
from fomo_dagster.store.process_memory import ProcessMemory
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.experiment.execution import Execution
    from fomo_dagster.graph.run.run_context import RunContext

AGENT = "fomo_dagster.cli.agent"
LAUNCHER = "launcher"  # its lifeline
_SECONDS_BETWEEN_LOOKS = 0.2  # for a request to stop: looks take time from what computes
MOST_TIMES = 4  # that work is begun, where its machine is lost
_SECONDS_TO_END = 60.0  # of a process that was told to, and only has to leave
_KINDS = {kind.__name__: kind for kind in (InputError, DataError, StoreError, TrainingError)}
_FAILED = re.compile(r"rank\s*:\s*(\d+)\D[^\n]*\n\s*exitcode\s*:\s*(-?\d+)")  # torchrun's summary


def make(
    node: Node, name: str, recipe: Recipe, folder: Path, claim: Claim, context: RunContext
) -> Mapping[str, Any]:
    """Write the node's artifact into `folder`: here, or by processes of its own. The claim is
    held."""
    context.run.begins(node)
    count = _processes(node)
    if count == 1 and not (context.run.cluster.has_workers and node.needs_of(name) is not None):
        with _here(node, claim.lent) as own:
            return make_here(own, name, recipe, folder, context)
    recipes = {name: recipe}
    cost = _launch(node, recipes, _place_of(recipes, context), folder, claim, context)
    return cost if count == 1 else cost | {"processes": count}


def make_here(
    node: Node, name: str, recipe: Recipe, folder: Path, context: RunContext
) -> dict[str, Any]:
    """Write the node's artifact into `folder` in this process alone; what it cost, with memory."""
    memory = ProcessMemory()
    cost = node.make(name, recipe, folder, context) or {}
    return memory.costs() | dict(cost)


def make_side_by_side(
    node: Node, recipes: Mapping[str, Recipe], claim: Claim, context: RunContext
) -> frozenset[str]:
    """Have those of a node's artifacts that are not there made by processes of their own, one each
    at a time, where it is spread so; their names."""
    several = node.parallelism is not None and node.parallelism.all_processes > 1
    if not node.parallel_over_artifacts or not (several or context.run.cluster.has_workers):
        return frozenset()

    def missing() -> dict[str, Recipe]:
        return {n: recipe for n, recipe in recipes.items() if not context.store.holds(recipe)}

    least = 1 if context.run.cluster.has_workers else 2
    here = _place_of(recipes, context)
    if len(missing()) < least and not _folders(here):
        return frozenset()
    # First, so that who wants the same waits for what is made rather than for a device.
    with lease(context.home.leases / f"side_by_side_{here.name}", context.waits_for_maker):
        wanted = missing()
        if len(wanted) < least:  # a launcher was killed when they had just been made
            for left in _folders(here):
                shutil.rmtree(left, ignore_errors=True)
            return frozenset()
        # A device is never held while another machine makes one of these.
        with context.store.claimed(list(wanted.values()), context.waits_for_maker) as claimed:
            made = missing() if claimed else wanted
            if len(made) < least:
                return frozenset()
            with claim.held() as waited:
                made = missing() if waited else made
                if made:
                    context.run.begins(node)
                    _launch(node, made, here, None, claim, context)
    return frozenset(made)


def _processes(node: Node) -> int:
    """How many processes make one artifact of a node together."""
    execution = node.parallelism
    return 1 if execution is None or node.parallel_over_artifacts else execution.all_processes


@contextmanager
def _here(node: Node, lent: Lent) -> Iterator[Node]:
    """The node as this process makes it, on the device that was lent, with its share of the
    cores."""
    if lent.sharing == 1 and not lent.environment:
        yield node
        return
    import torch

    device = lent.devices[0]
    if lent.environment and hasattr(node, "execution"):
        execution = node.execution.model_copy(update={"device": device.name})
        node = replace(node, execution=execution)  # type: ignore[call-arg]
    if device.name.startswith("cuda"):
        torch.cuda.set_device(device.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // lent.sharing))
    try:
        yield node
    finally:
        torch.set_num_threads(threads)


def _launch(
    node: Node,
    recipes: Mapping[str, Recipe],
    here: Path,
    folder: Path | None,
    claim: Claim,
    context: RunContext,
) -> dict[str, Any]:
    """What it cost. Raises what the processes raise; `TrainingError` where one was lost,
    `KeyboardInterrupt` on a signal that asks to stop, once they have stopped.

    Where the machine was lost with them, others go on from what they kept. They communicate through
    folders named after `here`, one each time.
    """
    if context.run.channel is None:
        raise InputError(
            f"{node.key}: execution.processes needs `fomo run` or Dagster, which launch them"
        )
    execution = node.parallelism
    several = execution if execution is not None and execution.all_processes > 1 else None
    task = Task(
        declared=as_data(context.graph.owners[node.key]),
        galleries=[as_data(gallery) for gallery in node.galleries], home=context.home, key=node.key,
        digests={name: recipe.digest for name, recipe in recipes.items()}, folder=folder,
        threads=_threads(several, folder, claim.lent), sharing=claim.lent.sharing,
        processes=claim.lent.cpus or context.processes,
        host=socket.gethostname(), tells_steps=context.callbacks.steps is not ignore_steps,
    )  # fmt: skip
    needs = node.needs or Needs()
    with lease(context.home.leases / f"launch_{here.name}", context.waits_for_maker):
        for times in range(1, MOST_TIMES + 1):
            launch = Launch(
                asset=node.key, here=here.with_name(f"{here.name}_{times}"), needs=needs,
                environment=claim.lent.environment, waiting=context.callbacks.waiting,
            )  # fmt: skip
            _make_private(launch.here)
            write_bytes(launch.here / TASK, task.model_dump_json().encode())
            try:
                return _made_by_processes(launch, task, several, recipes, context)
            except MachineLostError as error:
                # So whatever still works there, cut off from here, can say nothing any more.
                shutil.rmtree(launch.here, ignore_errors=True)
                lost = str(error)
                context.say([f"{node.key}: {lost}; begun again from its resume point"])
    raise TrainingError(f"{MOST_TIMES} times in a row {lost}. Run again to go on")


def _place_of(recipes: Mapping[str, Recipe], context: RunContext) -> Path:
    """What the folders of `_launch` are named after, for whoever makes these."""
    return context.home.root / "launches" / identity(recipes)


def _folders(here: Path) -> list[Path]:
    """Those of `_launch` that are there."""
    return list(here.parent.glob(f"{here.name}_*"))


def _threads(several: Execution | None, folder: Path | None, lent: Lent) -> int | None:
    """Of each process, where it does not take its share of its machine's. torchrun would give each
    of several one thread."""
    if several is None and lent.cpus is None:
        return None
    if lent.cpus is None:
        import torch

        threads = torch.get_num_threads()
    else:  # told without PyTorch, whose import takes seconds of all that begins now
        asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        threads = int(asked) if asked.isdecimal() and int(asked) else lent.cpus
    if several is None:
        return threads
    return threads if folder is None else max(1, threads // several.processes)


def _make_private(folder: Path) -> None:
    """An empty folder that nobody else can look into or write to; raises `StoreError` where there
    can be none."""
    shutil.rmtree(folder, ignore_errors=True)
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise StoreError(f"{folder} is in the way and cannot be removed: delete it") from error


def _made_by_processes(
    launch: Launch,
    task: Task,
    several: Execution | None,
    recipes: Mapping[str, Recipe],
    context: RunContext,
) -> dict[str, Any]:
    processes = several.all_processes if several is not None else 1
    assert context.run.channel is not None
    here, stopped, status = launch.here, "", 0
    if several is not None:
        launch = replace(launch, command=torchrun(several, here / TASK))
        _say_what_others_run(several, launch.command, context)
    try:
        with context.run.channel(here, context.callbacks) as variables:
            environment = {**variables, **launch.environment}
            status = _run(replace(launch, environment=environment), context)
    except KeyboardInterrupt as stop:
        stopped = str(stop) or "interrupted"
    result = json.loads((here / RESULT).read_text()) if (here / RESULT).exists() else {}
    if stopped:
        shutil.rmtree(here, ignore_errors=True)
        raise KeyboardInterrupt(result.get("stopped", stopped))
    # Where a process was lost, torchrun stops the others by a signal, which is not the reason.
    if "stopped" in result and not _killed((here / OUTPUT).read_text(errors="replace")):
        shutil.rmtree(here, ignore_errors=True)
        one = f"one of {processes} processes" if processes > 1 else "its process"
        raise TrainingError(f"{one} was stopped by {result['stopped']}")
    context.say(text for said in sorted(here.glob("warned_*")) for text in _read(said))
    if "cost" not in result:
        folders = [context.resume_folder(r) for r in recipes.values()]
        together = folders if task.folder is not None else None
        raise _failure(here, processes, together, status)
    shutil.rmtree(here, ignore_errors=True)
    cost: dict[str, Any] = result["cost"]
    return cost


def torchrun(execution: Execution, task: Path) -> list[str]:
    """The command that starts this machine's processes or, with `machines.start`, all of them."""
    machines = execution.machines
    count, rendezvous, interface = "1", "127.0.0.1:0", None
    if machines is not None:
        count, rendezvous = str(machines.count), machines.rendezvous
        interface = machines.interface
    meeting = [
        "--nnodes", count, "--rdzv-backend", "fomo", "--rdzv-endpoint", rendezvous,
        "--rdzv-id", task.parent.name,
        *(["--rdzv-conf", f"interface={interface}"] if interface is not None else ()),
    ]  # fmt: skip
    return [
        *(machines.start if machines is not None else ()),
        sys.executable, "-m", AGENT, *meeting,
        "--nproc-per-node", str(execution.processes), "-m", WORKER, str(task),
    ]  # fmt: skip


def _say_what_others_run(execution: Execution, command: Sequence[str], context: RunContext) -> None:
    if execution.machines is not None and not execution.machines.start:
        others = execution.machines.count - 1
        context.say([f"waiting for {others} other machines, each to run: {' '.join(command)}"])


def _run(launch: Launch, context: RunContext) -> int:
    """Run what is started to its end, and see to it that nothing of it is left on this machine; its
    status, or minus the signal that ended it."""
    from fomo_dagster.training.interruption import Interruption

    here = launch.here
    process: Started | None = None
    try:
        with living(here / LAUNCHER):
            try:
                with Interruption() as interruption:
                    check()
                    process = context.run.cluster.start(launch)
                    while (status := process.poll(_SECONDS_BETWEEN_LOOKS)) is None:
                        check_condition()
                        received = interruption.received or context.run.stop.received
                        if received is not None and not (here / STOP).exists():
                            write_bytes(here / STOP, received.encode())
                        if context.run.stop.is_insisted_on:
                            process.kill()
                            process.wait()
                if context.run.stop.received is not None:
                    raise KeyboardInterrupt(context.run.stop.received)
                return status
            finally:
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
    finally:
        _wait_for_workers(here)


def _wait_for_workers(here: Path) -> None:
    """Until no process of this machine lives, or for as long as leaving can take."""
    until = time.monotonic() + _SECONDS_TO_END
    for path in here.glob(f"process_*@{socket.gethostname()}"):
        wait_for_end(path, until)


def _failure(
    here: Path, processes: int, resume_folders: Sequence[Path] | None, status: int
) -> FomoError:
    """The one error to end with: what the processes said or, where one was lost, that.

    resume_folders: of what they made together; None: each made whole artifacts. status: torchrun's,
    as of `_run`.
    """
    said = [_read(path) for path in sorted(here.glob("failed_*"))]
    for failure in said:
        if failure["kind"] in _KINDS:
            shutil.rmtree(here, ignore_errors=True)
            return _KINDS[failure["kind"]](failure["message"])
    output = (here / OUTPUT).read_text(errors="replace") if (here / OUTPUT).exists() else ""
    if resume_folders is None:
        going_on = "What was finished is kept; run again to continue"
    else:
        points = [f"{path} is kept" for folder in resume_folders for path in folder.glob("*.pt")]
        going_on = (
            f"The resume point: {(points or ['none was written yet'])[0]}; run again to continue"
        )
    kept = f"{going_on}. What they wrote: {here / OUTPUT}"
    if processes == 1 and status < 0:
        return TrainingError(f"its process was ended by {_named(-status)}. {kept}")
    if processes == 1 and status == LOST:
        return TrainingError(
            "the process from which all others are forked was ended from outside, probably for "
            f"lack of memory; the next asset starts another. {kept}"
        )
    for rank, number in _killed(output) or _killed(output, by_term=True):
        return TrainingError(
            f"process {rank} of {processes} was ended by {_named(number)}; the others were "
            f"stopped. {kept}"
        )
    if said:
        reason = said[0]["message"]
    elif status < 0:
        reason = f"torchrun was ended by {signal.Signals(-status).name}"
    else:
        who = "torchrun" if processes > 1 else "it"
        reason = output.strip().rpartition("\n")[2] or f"{who} ended with status {status}"
    those = f"the {processes} processes" if processes > 1 else "its process"
    return TrainingError(f"{those} failed: {reason}. {kept}")


def _named(number: int) -> str:
    """A signal that ended a process, with what that means."""
    name = signal.Signals(number).name
    return f"{name}, probably for lack of memory" if number == signal.SIGKILL else name


def _killed(output: str, *, by_term: bool = False) -> list[tuple[str, int]]:
    """(rank, signal) of the processes that a signal ended; by SIGTERM, where nothing else did, or
    by any other."""
    ended = [(rank, -int(code)) for rank, code in _FAILED.findall(output) if int(code) < 0]
    return [(rank, number) for rank, number in ended if (number == signal.SIGTERM) is by_term]


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
