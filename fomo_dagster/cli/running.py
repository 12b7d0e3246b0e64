"""`fomo run`: plan, materialise through Dagster what the plan says, and show the scores.

Of a sweep, one experiment after the other, over one graph: what they share is made by the first.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import dagster as dg

from assets.building import build_assets, job_of
from assets.commands import Commands
from assets.specs import key_of
from fomo_dagster.cli.dagster_home import check_path, prepare
from fomo_dagster.cli.dagster_runs import run_job
from fomo_dagster.cli.failures import failure_of, interruption_of
from fomo_dagster.cli.interruptions import Signals
from fomo_dagster.cli.output import Terminal, stdout_of_now
from fomo_dagster.cli.planning import RunRequest, resolve_request, warn_once
from fomo_dagster.cli.run_view import RunView, TextView
from fomo_dagster.errors import FomoError, InputError, StoppedError, StoreError
from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.core.keys import assets_by_step, what_is_made
from fomo_dagster.graph.run.devices import missing_devices
from fomo_dagster.graph.run.materialise import remove_stale_heads
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.home import Home, training_slots
from fomo_dagster.progress import Callbacks
from fomo_dagster.store.heads import Head
from fomo_dagster.store.leases import lease
from fomo_dagster.trackers.choosing import named_by_environment, open_trackers
from fomo_dagster.trackers.sending import Trackers
from resources.pipes import PipesChannel

# A run can bring what its plan could not know: images that turn out to be unreadable.
MOST_ROUNDS = 3
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
COMMAND_TAG = "fomo/command"
DATA_VERSION_TAG = "dagster/data_version"  # where Dagster keeps an observation's data version


def run_experiment(
    name_or_path: str,
    overrides: Sequence[str],
    instance: dg.DagsterInstance | None = None,
    command: str = "",
    view: RunView | None = None,
) -> None:
    """Bring an experiment, or those of a sweep, up to date.

    Raises what failed; `StoppedError` on SIGINT, SIGTERM and SIGHUP. Of a sweep, where an
    experiment fails the others go on, but for those that need the very asset that failed; which did
    not end well is said at the end.

    instance: where Dagster keeps what happens; by default in the project's home. command: what
    Dagster's runs are said to come from; by default `fomo run` with these arguments. view: whom it
    tells what it does; by default the terminal.
    """
    settings = [argument for override in overrides for argument in ("--set", override)]
    command = command or shlex.join(["fomo", "run", name_or_path, *settings])
    with Signals() as signals, stdout_of_now() as stdout:
        view = view or TextView(Terminal(file=stdout))
        try:
            _run(name_or_path, overrides, instance, command, view, signals)
        except KeyboardInterrupt as error:
            number = signals.received or signal.SIGINT
            message = f"stopped by {number.name}; the same command goes on from here"
            raise StoppedError(number, message) from error


def plan_experiment(name_or_path: str, overrides: Sequence[str]) -> list[Planned]:
    """Plan an experiment, or those of a sweep; raises `InputError` where one cannot be used."""
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
) -> None:
    home = Home.from_environment()
    if instance is None:
        check_path(home)
    trackers = open_trackers(named_by_environment(), home.root)
    request = resolve_request(name_or_path, overrides)
    runner = _Runner(request.graph, request.home, instance, command, view, signals, trackers)
    try:
        _bring_up_to_date(request, runner)
    finally:
        trackers.close(view.warn)


def _bring_up_to_date(request: RunRequest, runner: _Runner) -> None:
    if not request.experiment_set.is_several:
        runner.view.experiment(request.experiment.name, 1, 1)
        runner.bring_up_to_date(request)
        runner.view.ended(request)
        return
    failures = runner.bring_all_up_to_date(request)
    runner.view.ended(request)
    if failures:
        many = f"{len(failures)} of {len(request.experiment_set.all_names)} experiments failed"
        said = "".join(f"\n  {name}: {error}" for name, error in failures.items())
        raise type(next(iter(failures.values())))(f"{request.experiment_set.sweep}: {many}{said}")


@dataclass(frozen=True)
class _Runner:
    """What the experiments of a command have in common. instance: None: that of the home."""

    graph: Graph
    home: Home
    instance: dg.DagsterInstance | None
    command: str
    view: RunView
    signals: Signals
    trackers: Trackers
    failed: list[str] = field(default_factory=list)
    """The assets that failed so far."""

    @cached_property
    def assets(self) -> list[dg.AssetsDefinition | dg.SourceAsset]:
        return build_assets(self.graph)

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.graph, self.home, self.trackers, self.view.warn)

    def bring_up_to_date(self, request: RunRequest) -> None:
        """Plan and materialise until nothing is left to do; raises what failed."""
        name = request.experiment.name

        def waiting(holder: str) -> None:
            self.view.waiting(f"process {holder}, which is running {name}")

        with ExitStack() as stack:
            refusal = None
            try:
                stack.enter_context(lease(self.home.leases / f"experiment_{name}", waiting))
            except StoreError as error:  # a disk that is read-only, where all may be there
                refusal = error
            finally:
                self.view.goes_on()
            planned = request.plan()
            if missing := missing_devices(planned, self.graph):
                raise InputError("\n".join(missing))
            rounds = 0
            while wanted := [entry for entry in planned if not entry.current]:
                if rounds == MOST_ROUNDS:
                    left = ", ".join(entry.asset for entry in wanted)
                    raise StoreError(f"{name}: still out of date after {rounds} rounds: {left}")
                self.view.planned(name, planned)
                if refusal is not None:
                    raise refusal
                self._materialise(request, wanted, self.instance or prepare(self.home))
                planned = request.plan()
                rounds += 1
            if refusal is None:
                remove_stale_heads(name, RunContext(self.graph, self.home))
        self.home.store.push_pending()
        if self.trackers:
            self.tracking.catch_up(name)
        self.view.up_to_date(request, len(planned))

    def bring_all_up_to_date(self, request: RunRequest) -> dict[str, FomoError]:
        """The experiments of a sweep in turn; the names of those that failed → why."""
        failures = {trouble.name: trouble.error for trouble in request.experiment_set.troubles}
        members = request.each()
        for number, member in enumerate(members, 1):
            name = member.experiment.name
            self.view.experiment(name, number, len(members))
            broken = next((key for key in self.failed if _needs(member, key)), None)
            if broken is not None:
                failures[name] = StoreError(f"{broken}: failed before, and is needed here too")
            else:
                try:
                    self.bring_up_to_date(member)
                except FomoError as error:
                    failures[name] = error
            if name in failures:
                self.view.not_up_to_date(name, failures[name])
        return failures

    def _materialise(
        self, request: RunRequest, wanted: Sequence[Planned], instance: dg.DagsterInstance
    ) -> None:
        observe_sources(request, instance)
        keys = [key_of(entry.asset) for entry in wanted]
        with self.view.materialising([entry.asset for entry in wanted]):
            run_contexts = _ShownRunContexts(self.home, self.view, self.tracking, training_slots())
            name = request.experiment.name
            definitions = dg.Definitions(
                self.assets,
                jobs=[job_of(name, [name], self.graph)],
                resources={"run_contexts": run_contexts},
                executor=dg.in_process_executor,
            )
            result = run_job(
                definitions.resolve_job_def(name),
                keys,
                instance,
                tags={COMMAND_TAG: self.command},
                run_config=QUIET,
                in_ui=request.is_in_project,
            )
        if result.success:
            return
        number = self.signals.received
        assets = assets_by_step(self.graph.nodes)
        if number is not None:
            instance.report_run_canceled(result.dagster_run, f"stopped by {number.name}")
            where = interruption_of(result, assets) or f"stopped by {number.name}"
            raise StoppedError(number, f"{where}; the same command goes on from here")
        asset, failure = failure_of(result, assets)
        self.failed.append(asset)
        self.view.failed(asset, failure)
        raise failure


def _needs(request: RunRequest, asset: str) -> bool:
    """asset: a key, or what the keys of a stream's chunks begin with."""
    return any(node.key == asset or node.key.startswith(f"{asset}/") for node in request.nodes)


@dataclass(frozen=True)
class _ShownRunContexts:
    """The assets' resource of a command: progress goes to its view."""

    home: Home
    view: RunView
    tracking: Tracking
    slots: int

    def open(self, graph: Graph, context: Any) -> RunContext:
        made = what_is_made(min(key.to_user_string() for key in context.selected_asset_keys))
        step = self.view.step(made)

        def finished(head: Head, seconds: float) -> None:
            step.finished(head, seconds)
            self.tracking.finished(head)

        def steps(asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
            step.steps(asset, digest, rows)
            self.tracking.steps(asset, digest, rows)

        return RunContext(
            graph,
            self.home,
            processes=os.cpu_count() or 1,
            callbacks=Callbacks(
                progress=step.progress,
                steps=steps,
                waiting=step.waiting,
                warn=partial(warn_once, say=self.view.warn),
            ),
            run=Run(
                id=context.run.run_id,
                channel=PipesChannel(context),
                slots=self.slots,
                begins=step.begins,
                finished=finished,
            ),
        )


def observe_sources(request: RunRequest, instance: dg.DagsterInstance) -> None:
    """Tell Dagster what the sources hold now, so that its UI calls stale what is."""
    run_context = RunContext(request.graph, request.home)
    needed = {key for node in request.nodes for key in node.inputs}
    for key in sorted(needed & request.graph.sources.keys()):
        tags = {DATA_VERSION_TAG: run_context.observe(key).data_version}
        instance.report_runless_asset_event(dg.AssetObservation(key_of(key), tags=tags))
