"""Dagster's steps in threads of one process: whatever is ready goes on at once.

What takes more than a moment waits for its device and computes in a process of its own (see
`graph/run/launching.py`), so that a thread costs next to nothing and a hit nothing else. Dagster's
own way, a process for each step, builds the job and its plan in every one of them: 0.7 s a step in
a job of 20 steps, 0.8 s of 200, for hits too (docs/log.md).
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from uuid import uuid4

import dagster as dg

from fomo_dagster.graph.run.pending import pending_of
from fomo_dagster.stopping import Stop, stop_of
from resources.dagster_internals import (
    DagsterExecutionInterruptedError,
    EngineEventData,
    ExecuteRunWithPlanIterable,
    ExecutionPlan,
    Executor,
    InstanceConcurrencyContext,
    PlanExecutionContext,
    PlanExecutionContextManager,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
    StepExecutionContext,
    dagster_event_sequence_for_step,
)

MOST_THREADS = 512
SECONDS_BETWEEN_LOOKS = 0.25  # for an interrupt
INTERRUPTIONS = (KeyboardInterrupt, DagsterExecutionInterruptedError)


@dg.executor(name="processes", requirements=[])
def step_threads(context: dg.InitExecutorContext) -> Executor:
    """Makes whatever is ready at once: each device's work in a process of its own."""
    return StepThreads()


class StepThreads(Executor):
    """Executes the steps of a run in threads."""

    @property
    def retries(self) -> RetryMode:
        """Whether steps that ask for it are tried again."""
        return RetryMode.ENABLED

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """A step begins when those before it have ended well."""
        return StepDependencyConfig.default()

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of the run, as they come. Raises what interrupts it, once all threads have
        ended."""
        yield dg.DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in threads of process {os.getpid()}",
            EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
        )
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_events,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


def _events(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan
) -> Iterator[dg.DagsterEvent]:
    stop, pending = stop_of(job_context.run_id), pending_of(job_context.run_id)
    events: SimpleQueue[tuple[str, dg.DagsterEvent | BaseException | None]] = SimpleQueue()
    threads: dict[str, Thread] = {}
    raised: list[BaseException] = []
    with (
        ExitStack() as stack,
        InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as concurrency,
        execution_plan.start(
            retry_mode=job_context.retry_mode,
            instance_concurrency_context=concurrency,
            step_dependency_config=job_context.step_dependency_config,
        ) as active,
    ):
        yield from _captured(job_context, execution_plan, stack)
        while threads or not (raised or stop.received or active.is_complete):
            if active.check_for_interrupts():
                active.mark_interrupted()
                stop.request("SIGTERM")  # never one that this process ignores
            if not raised and stop.received is None:
                ready = active.get_steps_to_execute(limit=MOST_THREADS - len(threads))
                pending.begin(step.key for step in ready)
                for step in ready:
                    context = job_context.for_step(step, active.get_known_state())
                    threads[step.key] = Thread(
                        target=_execute, args=(context, stop, events), name=step.key
                    )
                    threads[step.key].start()
                yield from active.concurrency_event_iterator(job_context)
            try:
                key, event = events.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                continue
            if isinstance(event, dg.DagsterEvent):
                yield event
                active.handle_event(event)
                continue
            threads.pop(key).join()
            pending.end(key)
            if event is not None:
                raised.append(event)
            active.verify_complete(job_context, key)
            if not raised:
                yield from active.plan_events_iterator(job_context)
        if raised:
            raise next((error for error in raised if isinstance(error, INTERRUPTIONS)), raised[0])
        if stop.received is not None:
            raise DagsterExecutionInterruptedError


def _execute(
    context: StepExecutionContext,
    stop: Stop,
    events: SimpleQueue[tuple[str, dg.DagsterEvent | BaseException | None]],
) -> None:
    """A step, in a thread of its own; at last, None or what it raised."""
    key, error = context.step.key, None
    try:
        with stop.heeded():
            for event in dagster_event_sequence_for_step(context):
                events.put((key, event))
    except BaseException as raised:
        error = raised
    finally:
        events.put((key, error))


def _captured(
    context: PlanExecutionContext, plan: ExecutionPlan, stack: ExitStack
) -> Iterator[dg.DagsterEvent]:
    """Capture what the process prints, for the UI; a run goes on where that is not possible."""
    manager = context.instance.compute_log_manager
    key = manager.build_log_key_for_run(context.run_id, uuid4().hex[:8])
    with suppress(OSError):
        log = stack.enter_context(manager.capture_logs(key))
        steps = [step.key for step in plan.get_steps_to_execute_in_topo_order()]
        yield dg.DagsterEvent.capture_logs(context, steps, key, log)
