"""`fomo run`: plan, materialise through Dagster what the plan says, and show the scores.

The experiments of a sweep or a comparison are one run over one graph, so that whatever is ready of
any of them can go on at once, and what they share is made once.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from assets.commands import Commands
from fomo_dagster.cli.interruptions import Signals
from fomo_dagster.cli.output import Terminal, stdout_of_now
from fomo_dagster.cli.planning import RunRequest, resolve_request
from fomo_dagster.cli.run_view import RunView, TextView
from fomo_dagster.errors import FomoError, InputError, StoppedError, StoreError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.keys import what_is_made
from fomo_dagster.graph.run.clusters import Cluster
from fomo_dagster.graph.run.executors import open_cluster
from fomo_dagster.graph.run.materialise import remove_stale_heads
from fomo_dagster.graph.run.missing_devices import missing_devices
from fomo_dagster.graph.run.packing import pack_weights
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.graph.run.retention import apply_retention
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.home import Home
from fomo_dagster.store.leases import lease
from fomo_dagster.store.pushing import made_before
from fomo_dagster.trackers.choosing import named_by_environment, open_trackers
from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.units import counted

if TYPE_CHECKING:
    import dagster as dg

    from fomo_dagster.cli.materialising import Materialising

# A run can bring what its plan could not know: images that turn out to be unreadable.
MOST_ROUNDS = 3


def run_experiment(
    name_or_path: str,
    overrides: Sequence[str],
    instance: dg.DagsterInstance | None = None,
    command: str = "",
    view: RunView | None = None,
    parallel: int | None = None,
) -> None:
    """Bring an experiment, those of a sweep or a comparison, or a gallery, up to date.

    Raises what failed; `StoppedError` on SIGINT, SIGTERM and SIGHUP. Where an asset fails, whatever
    does not need it goes on; the failures are told together at the end.

    instance: where Dagster keeps what happens; by default in the project's home. command: what
    Dagster's runs are said to come from; by default `fomo run` with these arguments. view: whom it
    tells what it does; by default the terminal. parallel: the most devices that are used at once;
    by default all of this machine.
    """
    settings = [argument for override in overrides for argument in ("--set", override)]
    command = command or shlex.join(["fomo", "run", name_or_path, *settings])
    with Signals() as signals, stdout_of_now() as stdout:
        view = view or TextView(Terminal(file=stdout))
        try:
            _run(name_or_path, overrides, instance, command, view, signals, parallel)
        except KeyboardInterrupt as error:
            number = signals.received or signal.SIGINT
            message = f"stopped by {number.name}; the same command goes on from here"
            raise StoppedError(number, message) from error


def plan_experiment(name_or_path: str, overrides: Sequence[str]) -> list[Planned]:
    """Plan an experiment, those of a sweep or a comparison, or a gallery; raises `InputError` where
    one cannot be used."""
    request = resolve_request(name_or_path, overrides)
    request.check_whole()
    return request.plan()


COMMANDS = Commands(run=run_experiment, plan=plan_experiment)


def _run(
    name_or_path: str,
    overrides: Sequence[str],
    instance: dg.DagsterInstance | None,
    command: str,
    view: RunView,
    signals: Signals,
    parallel: int | None,
) -> None:
    cluster = open_cluster(parallel)
    home = Home.from_environment()
    if instance is None:
        home.check_dagster()
    trackers = open_trackers(named_by_environment(), home.root)
    request = resolve_request(name_or_path, overrides)
    runner = _Runner(request, instance, command, view, signals, trackers, cluster)
    try:
        failures = runner.bring_up_to_date()
        shows_what_there_is = request.experiment_set.is_several and request.comparison is None
        if shows_what_there_is or not failures:
            view.ended(request)
    finally:
        trackers.close(view.warn)
    if failures:
        raise _all_of(failures, request)


def _all_of(failures: Mapping[str, FomoError], request: RunRequest) -> FomoError:
    """The one error that a command ends with. failures: by experiments and comparisons, or by
    assets of the one experiment."""
    first = next(iter(failures.values()))
    experiments = request.experiment_set.all_names if request.experiment_set.is_several else ()
    failed = sum(name in experiments for name in failures)
    if len(failures) == 1 and not failed:
        return first
    said = "".join(f"\n  {name}: {error}" for name, error in failures.items())
    if not experiments:
        return type(first)(f"{len(failures)} assets failed{said}")
    many = f"{failed} of {len(experiments)} experiments failed"
    if others := len(failures) - failed:
        many += f", and {counted(others, 'comparison')}"
    return type(first)(f"{request.experiment_set.name}: {many}{said}")


@dataclass(frozen=True)
class _Runner:
    """A command. instance: None: that of the home."""

    request: RunRequest
    instance: dg.DagsterInstance | None
    command: str
    view: RunView
    signals: Signals
    trackers: Trackers
    cluster: Cluster
    failed: dict[str, FomoError] = field(default_factory=dict)
    """Why, by the assets that failed."""

    @property
    def graph(self) -> Graph:
        return self.request.graph

    @property
    def home(self) -> Home:
        return self.request.home

    @cached_property
    def _materialising(self) -> Materialising:
        # Dagster takes longer to import than to find that there is nothing to do.
        from fomo_dagster.cli.materialising import Materialising

        return Materialising(
            self.request, self.instance, self.command, self.view, self.signals, self.tracking,
            self.cluster, self.failed,
        )  # fmt: skip

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.graph, self.home, self.trackers, self.view.warn)

    def bring_up_to_date(self) -> dict[str, FomoError]:
        """Plan and materialise until nothing is left to do that can be done; what failed, by the
        experiments of several and what compares them, or by the assets of one experiment."""
        request = self.request
        members = request.each()
        with ExitStack() as stack:
            refusal = self._leased(stack)
            if any(node.needs and self.home.heads.read(node.key) is None for node in request.nodes):
                self.cluster.preload()  # while it plans
            if alone := made_before(self.home.store):
                self.view.warn(
                    f"{counted(alone, 'artifact')} were made here before FOMO_STORE was set, and "
                    "are on this machine alone: `fomo store push` copies what is needed"
                )
            planned = request.plan()
            if missing := missing_devices(planned, self.graph, self.cluster):
                raise InputError("\n".join(missing))
            for number, member in enumerate(members, 1):
                self.view.experiment(member.experiment.name, number, len(members))
            rounds, pieces = 0, self._pieces()
            while wanted := [entry for entry in planned if not entry.current]:
                if rounds == MOST_ROUNDS:
                    left = ", ".join(entry.asset for entry in wanted)
                    raise StoreError(
                        f"{request.name}: still out of date after {rounds} rounds: {left}"
                    )
                if not self.failed:
                    self._say_plan(members, planned, wanted)
                if refusal is not None:
                    raise refusal
                self._materialising.materialise(planned, wanted)
                if self.failed and len(members) == 1:
                    break
                planned = request.plan(but=self._lost())
                before, pieces = pieces, self._pieces()
                rounds = rounds + 1 if pieces == before else 0
            if refusal is None:
                for member in members:
                    self._tidy(member.experiment.name)
        self.home.store.push_pending()
        failures = {one.name: one.error for one in request.experiment_set.troubles}
        lost, named = self._lost(), set[str]()
        for member in members:
            name = member.experiment.name
            broken = next((lost[node.key] for node in member.nodes if node.key in lost), None)
            if broken is None:
                if self.trackers:
                    self.tracking.catch_up(name)
                self.view.up_to_date(member, len(member.nodes))
            elif request.experiment_set.is_several:
                failures[name] = (
                    StoreError(f"it needs {broken}, which failed")
                    if broken in named
                    else self.failed[broken]
                )
                named.add(broken)
                self.view.not_up_to_date(name, failures[name])
        failures |= {
            n.key: self.failed[n.key] for n in self.graph.of_comparisons if n.key in self.failed
        }
        return failures if request.experiment_set.is_several else self.failed

    def _pieces(self) -> dict[str, str | None]:
        """What is made in pieces → what there is of it."""
        heads = {
            node.key: self.home.heads.read(node.key)
            for node in self.request.nodes
            if node.is_made_in_pieces
        }
        return {key: None if head is None else head.digest for key, head in heads.items()}

    def _tidy(self, name: str) -> None:
        """Remove what an experiment no longer has and the weights that it does not retain, and pack
        those that it retains packed."""
        context = RunContext(self.graph, self.home)
        remove_stale_heads(name, context)
        try:
            cleaning = apply_retention(name, context)
        except StoreError as error:  # no reason for a run to fail
            self.view.warn(f"the weights of {name} are all kept: {error}")
            return
        if cleaning is not None:
            self.view.cleaned(name, cleaning)
        try:
            packing = pack_weights(name, context)
        except StoreError as error:
            self.view.warn(f"the weights of {name} stay as they are: {error}")
            return
        if packing is not None:
            self.view.packed(name, packing)

    def _leased(self, stack: ExitStack) -> StoreError | None:
        """Hold the leases of the experiments; why not, as on a disk that is read-only, where all
        may be there."""
        refusal = None
        # In one order for all commands, so that two never wait for each other.
        for name in sorted(self.request.experiment_set.names):
            holding = lease(self.home.leases / f"experiment_{name}", partial(self._waiting, name))
            try:
                stack.enter_context(holding)
            except StoreError as error:
                refusal = error
            finally:
                self.view.goes_on()
        return refusal

    def _waiting(self, name: str, holder: str) -> None:
        self.view.waiting(f"process {holder}, which is running {name}")

    def _say_plan(
        self, members: Sequence[RunRequest], planned: Sequence[Planned], wanted: Sequence[Planned]
    ) -> None:
        """Tell of each experiment that has something to do what that is, or of the gallery."""
        undone = {entry.asset for entry in wanted}
        for member in members:
            own = {node.key for node in member.nodes}
            if own & undone:
                plan = [entry for entry in planned if entry.asset in own]
                self.view.planned(member.experiment.name, plan)
        if self.request.gallery is not None:
            self.view.planned(self.request.gallery.key, planned)

    def _lost(self) -> dict[str, str]:
        """The assets that failed, or wait for one that did → the one that failed."""
        lost: dict[str, str] = {}
        for node in self.request.nodes if self.failed else ():
            made = what_is_made(node.key)
            if made in self.failed:
                lost[node.key] = made
            elif not node.takes_what_is_there:
                broken = next((lost[key] for key in node.follows if key in lost), None)
                if broken is not None:
                    lost[node.key] = broken
        return lost
