"""`fomo run --json`: what a run does, as an event a line for programs.

Every event is a JSON object in ASCII on a line of its own; `events.py` has the fields of each kind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from threading import RLock
from types import TracebackType
from typing import Any, TextIO

from fomo_dagster.cli.endings import ending_of
from fomo_dagster.cli.events import (
    AssetFailed,
    AssetFinished,
    AssetStarted,
    Event,
    ExperimentFinished,
    ExperimentStarted,
    Failure,
    PlanMade,
    ProgressMade,
    RunFinished,
    RunStarted,
    Waited,
    Waiting,
    Warned,
    WeightsCleaned,
    WeightsPacked,
)
from fomo_dagster.cli.output import WarningsTo, as_json, stdout_of_now
from fomo_dagster.cli.packages import OURS
from fomo_dagster.cli.planning import RunRequest, total_seconds
from fomo_dagster.cli.run_view import Pace, StepState, StepView
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.store.cleaning import Cleaning
from fomo_dagster.store.heads import Head
from fomo_dagster.store.packing import Packing
from fomo_dagster.tables.results import results
from fomo_dagster.texts import as_text

STDOUT, STDERR = 1, 2  # the descriptors that other processes know
SECONDS_BETWEEN_EVENTS = 1.0  # of the progress of one kind of work


class EventsView:
    """A run as events, as a `RunView`; within it, stdout has nothing else."""

    def __init__(
        self, experiment: str, settings: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begins_with = RunStarted(
            experiment=experiment, settings=list(settings), version=version(OURS)
        )
        self._clock = clock
        self._stack = contextlib.ExitStack()
        self._lock = RLock()
        self._run = self._step("")

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

    def waiting(self, what: str) -> None:
        self._run.waiting(what)

    def goes_on(self) -> None:
        self._run.goes_on()

    def materialising(self, assets: Sequence[str]) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def step(self, asset: str) -> StepView:
        return self._step(asset)

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

    def cleaned(self, name: str, cleaning: Cleaning) -> None:
        count, freed = len(cleaning.artifacts), cleaning.bytes
        self._emit(WeightsCleaned(experiment=name, artifacts=count, bytes=freed))

    def packed(self, name: str, packing: Packing) -> None:
        count, freed = len(packing.artifacts), packing.saved
        self._emit(WeightsPacked(experiment=name, artifacts=count, bytes=freed))

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

    def _step(self, asset: str) -> _EventsStep:
        state = StepState(asset, Pace(SECONDS_BETWEEN_EVENTS, self._clock))
        return _EventsStep(state, self._lock, self._emit)

    def _emit(self, event: Event) -> None:
        fields: dict[str, Any] = {"event": event.name, "time": datetime.now(UTC).isoformat()}
        text = json.dumps(as_json(fields | event.model_dump()))
        with self._lock:
            print(text, file=self._file, flush=True)


@dataclass
class _EventsStep:
    """A step as events, as a `StepView`."""

    state: StepState
    lock: AbstractContextManager[object]
    emit: Callable[[Event], None]

    def begins(self, node: Node) -> None:
        with self.lock:
            self.goes_on()
            if self.state.begins(node.key):
                self.emit(
                    AssetStarted(
                        asset=node.key, kind=node.kind, experiment=node.experiment, stage=node.stage
                    )
                )

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        with self.lock:
            self.goes_on()
            pace, row = self.state.pace, self.state.row
            left = pace.seconds_left(what, done, total)
            if not pace.is_due(what) and done < total:
                return
            self.emit(
                ProgressMade(
                    asset=self.state.asset,
                    work=what,
                    done=done,
                    total=total,
                    detail=detail,
                    loss=row.get("loss"),
                    samples_per_second=row.get("samples_per_second"),
                    seconds_left=left,
                )
            )

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        with self.lock:
            if rows:
                self.state.row = rows[-1]

    def waiting(self, what: str) -> None:
        with self.lock:
            self.state.waits()
            self.emit(Waiting(asset=self.state.asset or None, reason=what))

    def goes_on(self) -> None:
        with self.lock:
            waited = self.state.goes_on()
            if waited is not None:
                self.emit(Waited(asset=self.state.asset or None, seconds=waited))

    def finished(self, head: Head, seconds: float) -> None:
        with self.lock:
            self.goes_on()
            self.state.ends()
            self.emit(
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
