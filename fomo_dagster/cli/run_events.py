"""`fomo run --json`: what a run does, as an event a line for programs.

Every event is a JSON object in ASCII on a line of its own. The models below are what each kind of
event holds; `docs/hooks.py` makes the reference from them. Fields are added over time, and none is
renamed or removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar, Literal, TextIO

from pydantic import BaseModel, Field

from fomo_dagster.cli.endings import ending_of
from fomo_dagster.cli.output import WarningsTo, as_json, stdout_of_now
from fomo_dagster.cli.packages import OURS
from fomo_dagster.cli.planning import RunRequest, total_seconds
from fomo_dagster.cli.run_view import Pace
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.store.heads import Head
from fomo_dagster.tables.results import results
from fomo_dagster.texts import as_text

STDOUT, STDERR = 1, 2  # the descriptors that other processes know
SECONDS_BETWEEN_EVENTS = 1.0  # of the progress of one kind of work


class Failure(BaseModel):
    """What an `error` is."""

    kind: str = Field(
        description="`InputError`, `DataError`, `StoreError` or `TrainingError`; the name of a "
        "signal that stopped the run; or the class of another error."
    )
    message: str = Field(description="The sentence that a person would read.")


class Event(BaseModel):
    """The base of all events."""

    name: ClassVar[str]


class RunStarted(Event):
    """The command begins. Always the first event."""

    name = "run_started"
    experiment: str = Field(description="The experiment or sweep, as the command names it.")
    settings: list[str] = Field(description="What `--set` changes.")
    version: str = Field(description="The version of this package.")


class ExperimentStarted(Event):
    """An experiment begins. A sweep has several, one after the other."""

    name = "experiment_started"
    experiment: str = Field(description="The experiment's name.")
    number: int = Field(description="Which one it is, from 1.")
    experiments: int = Field(description="How many there are.")


class PlanMade(Event):
    """The plan of an experiment that is not up to date."""

    name = "planned"
    experiment: str = Field(description="The experiment's name.")
    compute: int = Field(description="Assets to compute.")
    hits: int = Field(description="Assets that are in the store.")
    estimated_seconds: float | None = Field(
        description="For all of it; null if some kind of asset was never computed here."
    )


class AssetStarted(Event):
    """The making of an asset begins. A hit has no such event."""

    name = "asset_started"
    asset: str = Field(description="The asset's key.")
    kind: str = Field(description="Its kind, such as `trained`.")
    experiment: str | None = Field(description="Whose asset it is; null if it is shared.")
    stage: int | None = Field(description="The stage that it belongs to, if any.")


class ProgressMade(Event):
    """Work on an asset goes on: at most one event a second for each kind of work, and one at its
    end."""

    name = "progress"
    asset: str | None = Field(description="The asset; null while nothing is made.")
    work: str = Field(description="What is done, such as `training` or `images`.")
    done: int = Field(description="Steps, images or whatever the work counts, so far.")
    total: int = Field(description="As many as there are.")
    detail: str = Field(description="A short text for people; may be empty.")
    loss: float | None = Field(description="Of a training: the loss of the last step.")
    samples_per_second: float | None = Field(description="Of a training: its present speed.")
    seconds_left: float | None = Field(
        description="Until the work ends, by its mean speed; null at first."
    )


class Waiting(Event):
    """The run waits for another process. `waited` follows when the wait is over."""

    name = "waiting"
    reason: str = Field(description="What it waits for, for people.")


class Waited(Event):
    """The wait is over."""

    name = "waited"
    seconds: float = Field(description="How long it was.")


class Warned(Event):
    """Something that a person should hear."""

    name = "warning"
    message: str = Field(description="The sentence.")


class AssetFinished(Event):
    """An asset was materialised."""

    name = "asset_finished"
    asset: str = Field(description="The asset's key.")
    kind: str = Field(description="Its kind.")
    experiment: str | None = Field(description="Whose asset it is; null if it is shared.")
    stage: int | None = Field(description="The stage that it belongs to, if any.")
    status: Literal["computed", "hit"] = Field(
        description="`hit` if all of it was in the store already."
    )
    digest: str = Field(description="Its digest, as in the view `artifacts`.")
    seconds: float = Field(description="How long it took this time.")


class AssetFailed(Event):
    """An asset could not be materialised."""

    name = "asset_failed"
    asset: str = Field(description="The asset's key; empty if it is not known.")
    error: Failure = Field(description="Why.")


class ExperimentFinished(Event):
    """An experiment is up to date, or failed while others of its sweep go on."""

    name = "experiment_finished"
    experiment: str = Field(description="The experiment's name.")
    outcome: Literal["up_to_date", "failed"] = Field(description="How it ended.")
    assets: int | None = Field(description="How many it has; null if it failed.")
    stage: int | None = Field(description="Its last stage; null if it failed.")
    scores: dict[str, float | None] | None = Field(
        description="The scores of that stage, in percent, by the columns of the view `scores`; "
        "null if it failed."
    )
    error: Failure | None = Field(description="Why it failed; null if it did not.")


class RunFinished(Event):
    """The command ends. Always the last event, unless the process is killed."""

    name = "run_finished"
    outcome: Literal["succeeded", "failed", "stopped"] = Field(
        description="`stopped` by a signal: the same command goes on from there."
    )
    exit_status: int = Field(description="The exit status of the command.")
    seconds: float = Field(description="How long the command took.")
    error: Failure | None = Field(description="What ended it; null if it succeeded.")


EVENTS: tuple[type[Event], ...] = (
    RunStarted, ExperimentStarted, PlanMade, Waiting, Waited, AssetStarted, ProgressMade, Warned,
    AssetFinished, AssetFailed, ExperimentFinished, RunFinished,
)  # fmt: skip


class EventsView:
    """A run as events, as a `RunView`; within it, stdout has nothing else."""

    def __init__(
        self, experiment: str, settings: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begins_with = RunStarted(
            experiment=experiment, settings=list(settings), version=version(OURS)
        )
        self._clock = clock
        self._pace = Pace(SECONDS_BETWEEN_EVENTS, clock)
        self._stack = contextlib.ExitStack()
        self._lock = Lock()  # launched processes tell through a thread of its own
        self._asset: str | None = None
        self._row: Mapping[str, float] = {}
        self._waits_since: float | None = None

    def __enter__(self) -> EventsView:
        self._started = self._clock()
        self._file = self._stack.enter_context(_stdout_alone())
        self._stack.enter_context(_warnings_to(self.warn))
        self._emit(self._begins_with)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if isinstance(error, BrokenPipeError):  # nobody reads any more
                return
            self._emit(_finished(error, self._clock() - self._started))

    def experiment(self, name: str, number: int, count: int) -> None:
        self._emit(ExperimentStarted(experiment=name, number=number, experiments=count))

    def planned(self, name: str, planned: Sequence[Planned]) -> None:
        computed = sum(entry.status == "compute" for entry in planned)
        self._emit(
            PlanMade(
                experiment=name,
                compute=computed,
                hits=len(planned) - computed,
                estimated_seconds=total_seconds(planned),
            )
        )

    @contextmanager
    def materialising(self, assets: Sequence[str]) -> Iterator[None]:
        try:
            yield
        finally:
            self._asset = None

    def begins(self, node: Node) -> None:
        self.goes_on()
        if node.key == self._asset:
            return
        self._asset, self._row = node.key, {}
        self._pace.restart()
        self._emit(
            AssetStarted(
                asset=node.key, kind=node.kind, experiment=node.experiment, stage=node.stage
            )
        )

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        self.goes_on()
        left = self._pace.seconds_left(what, done, total)
        if not self._pace.is_due(what) and done < total:
            return
        self._emit(
            ProgressMade(
                asset=self._asset,
                work=what,
                done=done,
                total=total,
                detail=detail,
                loss=self._row.get("loss"),
                samples_per_second=self._row.get("samples_per_second"),
                seconds_left=left,
            )
        )

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        if rows:
            self._row = rows[-1]

    def waiting(self, what: str) -> None:
        if self._waits_since is None:
            self._waits_since = self._clock()
        self._emit(Waiting(reason=what))

    def goes_on(self) -> None:
        if self._waits_since is not None:
            waited, self._waits_since = self._clock() - self._waits_since, None
            self._emit(Waited(seconds=waited))

    def finished(self, head: Head, seconds: float) -> None:
        self.goes_on()
        self._asset, self._row = None, {}
        self._emit(
            AssetFinished(
                asset=head.asset,
                kind=head.kind,
                experiment=head.experiment,
                stage=head.stage,
                status=head.status,
                digest=head.digest,
                seconds=seconds,
            )
        )

    def failed(self, asset: str, error: FomoError) -> None:
        self._emit(AssetFailed(asset=asset, error=_failure(error)))

    def warn(self, warning: str) -> None:
        self._emit(Warned(message=as_text(warning)))

    def up_to_date(self, request: RunRequest, assets: int) -> None:
        name = request.experiment.name
        last = results(request.home.root, [name]).stages.row(-1, named=True)
        self._emit(
            ExperimentFinished(
                experiment=name,
                outcome="up_to_date",
                assets=assets,
                stage=last["stage"],
                scores={metric.name: last[metric.name] for metric in STAGE_METRICS},
                error=None,
            )
        )

    def not_up_to_date(self, name: str, error: FomoError) -> None:
        self._emit(
            ExperimentFinished(
                experiment=name,
                outcome="failed",
                assets=None,
                stage=None,
                scores=None,
                error=_failure(error),
            )
        )

    def ended(self, request: RunRequest) -> None:
        """The event of each experiment has its scores."""

    def _emit(self, event: Event) -> None:
        fields: dict[str, Any] = {"event": event.name, "time": datetime.now(UTC).isoformat()}
        text = json.dumps(as_json(fields | event.model_dump()))
        with self._lock:
            print(text, file=self._file, flush=True)


def _failure(error: BaseException) -> Failure:
    ending = ending_of(error)
    if ending is None:
        return Failure(kind=type(error).__name__, message=as_text(str(error)))
    return Failure(kind=ending.kind, message=as_text(ending.sentence))


def _finished(error: BaseException | None, seconds: float) -> RunFinished:
    if error is None:
        return RunFinished(outcome="succeeded", exit_status=0, seconds=seconds, error=None)
    ending = ending_of(error)
    return RunFinished(
        outcome="failed" if ending is None else ending.outcome,
        exit_status=1 if ending is None else ending.status,
        seconds=seconds,
        error=_failure(error),
    )


@contextmanager
def _stdout_alone() -> Iterator[TextIO]:
    """Gives stdout. What anyone else prints there within, also a library or another process, goes
    to stderr."""
    with stdout_of_now() as file, contextlib.ExitStack() as stack:
        if file is not sys.stdout:
            kept = os.dup(STDOUT)
            stack.callback(os.close, kept)
            os.dup2(STDERR, STDOUT)
            stack.callback(os.dup2, kept, STDOUT)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield file


@contextmanager
def _warnings_to(warn: Callable[[str], None]) -> Iterator[None]:
    """The warnings that the engine logs go to `warn` within."""
    handler = WarningsTo(warn)
    logger = logging.getLogger("fomo_dagster")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
