"""`fomo doctor`: what an installation and a project stand on, and what a person may want to change.

Nothing is changed but for a probe that is written to a remote store. A finding is fine, a note (it
works, and there may be something to gain), or a problem (something will fail).
"""

from __future__ import annotations

import difflib
import os
import platform
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement
from rich.console import Console

from assets.building import without_what_dagster_refuses
from fomo_dagster.cli.output import say
from fomo_dagster.cli.packages import OURS, packages_in_the_way
from fomo_dagster.data.benchmark.release import RELEASE_VARIABLE, Release
from fomo_dagster.descriptors import LEAST, WANTED
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.experiment.experiment_sets import load_all
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.executors import open_cluster
from fomo_dagster.home import Home, project_folder
from fomo_dagster.shipped import checkout
from fomo_dagster.store.kernel_locks import hold_at
from fomo_dagster.store.places import Places
from fomo_dagster.store.remotes import Remote
from fomo_dagster.trackers.choosing import named_by_environment
from fomo_dagster.units import byte_size, counted

State = Literal["fine", "note", "problem"]
STYLES: dict[State, str] = {"fine": "green", "note": "yellow", "problem": "bold red"}
GIB = 2**30
LITTLE_DISK = 20 * GIB  # a ViT-B/32 in 20 stages leaves about 25 GiB of weights
LITTLE_SHARED_MEMORY = GIB  # loader processes pass their batches through it
VERSIONS = ("dagster", "torch", "torchvision", "open_clip_torch", "timm", "duckdb", "polars")
VARIABLES = (
    "FOMO_ANNOUNCE_EMAIL", "FOMO_ANNOUNCE_WEBHOOK", "FOMO_DEVICES", "FOMO_DOWNLOAD_LIMIT_GIB",
    "FOMO_EXECUTOR", "FOMO_EXPECTED", "FOMO_HEARTBEAT", "FOMO_HOME", "FOMO_INTERFACE",
    "FOMO_LEASE_SECONDS", "FOMO_LIVES_WITH", "FOMO_LOCKS", "FOMO_MOST_REQUEUES", "FOMO_POD",
    "FOMO_PODS", "FOMO_POD_DEVICE", "FOMO_PRETRAINING_POOL", "FOMO_PROJECT",
    "FOMO_RELEASE", "FOMO_RELEASE_IMAGES", "FOMO_SHOWN", "FOMO_SMTP", "FOMO_STORE",
    "FOMO_TRACKERS", "FOMO_TRAINING_SLOTS", "FOMO_UI",
)  # fmt: skip
SECRET = ("FOMO_ANNOUNCE_WEBHOOK", "FOMO_SMTP", "FOMO_STORE")  # may hold passwords


@dataclass(frozen=True)
class Finding:
    """advice: what a person can do about it; empty where there is nothing to be done."""

    topic: str
    state: State
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """All findings; one that cannot be had is a problem of its own."""
    findings: list[Finding] = []
    for topic, look in TOPICS.items():
        try:
            findings += look()
        except (FomoError, OSError) as error:
            findings.append(Finding(topic, "problem", str(error)))
    return findings


def print_findings(findings: list[Finding], console: Console) -> None:
    """A line for each finding with its advice below it, and how many there are of each kind."""
    width = max(len(finding.topic) for finding in findings)
    before = ""
    for one in findings:
        topic = one.topic if one.topic != before else ""
        before = one.topic
        say(console, f"{topic:{width}}  ", (f"{one.state:7}", STYLES[one.state]), f"  {one.found}")
        if one.advice:
            say(console, " " * (width + 11), one.advice)
    counts = [sum(one.state == state for one in findings) for state in ("problem", "note")]
    say(console, f"\n{counted(counts[0], 'problem')}, {counted(counts[1], 'note')}")


def as_data(findings: list[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON data."""
    return [asdict(finding) for finding in findings]


def _versions() -> Iterator[Finding]:
    where = checkout() or Path(__file__).resolve().parents[2]
    ours = _version(OURS)
    yield Finding("versions", "fine", f"{OURS} {ours or '(not installed)'} in {where}")
    python = f"Python {platform.python_version()} on {platform.platform()}"
    yield Finding("versions", "fine", python)
    found = {name: _version(name) for name in VERSIONS}
    there = [f"{name} {number}" for name, number in found.items() if number]
    yield Finding("versions", "fine", ", ".join(there))
    missing = [name for name, number in found.items() if not number]
    if missing:
        yield Finding("versions", "problem", f"not installed: {', '.join(missing)}",
                      f"pip install {OURS}")  # fmt: skip
    extras = _extras()
    if extras:
        there = [extra for extra, is_there in extras.items() if is_there]
        others = [extra for extra, is_there in extras.items() if not is_there]
        said = f"extras: {', '.join(there) or 'none'}; not installed: {', '.join(others) or 'none'}"
        yield Finding("versions", "fine", said)
    for sentence in packages_in_the_way():
        yield Finding("packages", "problem", sentence)


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    yield Finding(
        "devices", "fine",
        f"CPU: {cores} cores, {byte_size(memory.total)} of memory, "
        f"{byte_size(memory.available)} free",
    )  # fmt: skip
    import torch

    for number in range(torch.cuda.device_count()):
        try:
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            yield Finding("devices", "problem", f"cuda:{number} cannot be used: {first}",
                          "another process may hold it; nvidia-smi shows which")  # fmt: skip
            continue
        name = torch.cuda.get_device_name(number)
        said = f"cuda:{number}: {name}, {byte_size(total)} of memory, {byte_size(free)} free"
        busy = free < total / 2
        advice = "other processes hold more than half of it: nvidia-smi shows which" * busy
        yield Finding("devices", "note" if busy else "fine", said, advice)
    if torch.backends.mps.is_available():
        yield Finding("devices", "fine", "mps: named by execution.device, never chosen by itself")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        advice = (
            "PyTorch is built for one: look at the driver (nvidia-smi)" if built
            else "this PyTorch is built without one; see pytorch.org for the build of yours"
        )  # fmt: skip
        advice = f"models of the benchmark's size want one; {advice}"
        yield Finding("devices", "note", "no accelerator: trainings run on the CPU", advice)


def _executor() -> Iterator[Finding]:
    cluster = open_cluster()  # raises where it cannot be used
    said = f"{cluster.executor}: {counted(cluster.slots, 'asset')} that need a device at once"
    yield Finding("executor", "fine", said)


def _project() -> Iterator[Finding]:
    project = project_folder()
    declared = load_all(project)
    graph = without_what_dagster_refuses(build_project(project))
    experiments = counted(len(declared.experiments), "experiment")
    datasets = counted(len(declared.datasets.declared), "dataset")
    is_empty = not declared.experiments and not declared.troubles
    yield Finding("project", "note" if is_empty else "fine",
                  f"{project}: {experiments}, {datasets} declared",
                  "`fomo init` lays out a project" * is_empty)  # fmt: skip
    for trouble in graph.troubles:
        yield Finding("project", "problem", trouble.sentence)
    for sentence in graph.wrong_datasets:
        yield Finding("project", "problem", sentence)


def _home() -> Iterator[Finding]:
    home = Home.from_environment()
    there = _nearest_folder(home.root)
    if not os.access(there, os.W_OK):
        yield Finding("home", "problem", f"{home.root} cannot be written to",
                      "what is there can be planned, queried and exported; to make more, set "
                      "FOMO_HOME to a folder of yours")  # fmt: skip
    made = len(Places(home.root / "store").all())
    yield Finding("home", "fine", f"{home.root}: {counted(made, 'artifact')} in its store")
    if not hold_at(home.leases):
        yield Finding("home", "fine", "leases are files that beat: locks may not hold there among "
                      "all machines (FOMO_LOCKS)")  # fmt: skip
    free = shutil.disk_usage(there).free
    yield Finding("home", "fine" if free >= LITTLE_DISK else "note",
                  f"{byte_size(free)} of disk free",
                  "weights of every stage are kept: set FOMO_HOME to a larger disk"
                  * (free < LITTLE_DISK))  # fmt: skip
    if home.remote_url is None:
        yield Finding("home", "fine", "no remote store (FOMO_STORE): artifacts stay here")
    else:
        remote = Remote(home.remote_url)
        remote.check_writable()
        yield Finding("home", "fine", f"the remote store {remote.url} can be read and written")
        if not remote.has_claims:
            yield Finding("home", "note", "it cannot refuse to overwrite an object",
                          "two machines that share it may compute the same artifact")  # fmt: skip


def _system() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < WANTED
    state: State = "problem" if few and soft < LEAST else "note" if few else "fine"
    yield Finding("limits", state, f"open files: {_limit(soft)}, at most {_limit(hard)}",
                  f"{WANTED} are wanted for many loader processes: raise `nofile` in "
                  "/etc/security/limits.conf" * few)  # fmt: skip
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        little = size < LITTLE_SHARED_MEMORY
        yield Finding("limits", "note" if little else "fine", f"shared memory: {byte_size(size)}",
                      "loader processes pass batches through it: give the container more "
                      "(--shm-size), or set execution.workers: 0" * little)  # fmt: skip


def _dagster() -> Iterator[Finding]:
    home = Home.from_environment()
    home.check_dagster()
    ours = home.dagster
    named = os.environ.get("DAGSTER_HOME")
    command = "export DAGSTER_HOME=$(fomo dagster-home)"
    if not named:
        yield Finding("dagster", "note", f"DAGSTER_HOME is not set; `fomo` uses {ours}",
                      f"for Dagster's own commands: {command}")  # fmt: skip
    elif Path(named).expanduser().resolve() != ours.resolve():
        yield Finding("dagster", "note", f"DAGSTER_HOME is {named}, and `fomo` uses {ours}",
                      f"to see all runs in one place: {command}")  # fmt: skip
    else:
        yield Finding("dagster", "fine", f"DAGSTER_HOME is {named}")


def _variables() -> Iterator[Finding]:
    if os.environ.get(RELEASE_VARIABLE):
        try:
            Release.locate(None, None)
        except InputError as error:
            yield Finding("variables", "problem", str(error))
    named_by_environment()  # raises for a tracker that there is not
    for name in sorted(os.environ):
        if not name.startswith("FOMO_"):
            continue
        value = "is set" if name in SECRET else f"is {os.environ[name]!r}"
        close = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.8)
        if name in VARIABLES or not close:  # files of a project may read others
            yield Finding("variables", "fine", f"{name} {value}")
        else:
            yield Finding("variables", "note", f"{name} {value}, and fomo reads no such variable",
                          f"did you mean {close[0]}?")  # fmt: skip


TOPICS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": _versions,
    "devices": _devices,
    "executor": _executor,
    "project": _project,
    "home": _home,
    "limits": _system,
    "dagster": _dagster,
    "variables": _variables,
}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _extras() -> dict[str, bool]:
    """Extra → whether all that it names is installed; empty where this package is not."""
    try:
        declared = [Requirement(text) for text in requires(OURS) or ()]
    except PackageNotFoundError:
        return {}
    extras: dict[str, bool] = {}
    for requirement in declared:
        if requirement.marker is None:
            continue
        extra = str(requirement.marker).rpartition("==")[2].strip(" '\"")
        if extra != "dev":
            extras[extra] = extras.get(extra, True) and bool(_version(requirement.name))
    return extras


def _nearest_folder(path: Path) -> Path:
    """The path, or the folder above it that it would be made in."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"
