"""From the engine's errors to Dagster's failures, and from signals to runs that were canceled."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from fomo_dagster.errors import FomoError, StoppedError
from fomo_dagster.home import UI


@contextmanager
def engine_failures(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[None]:
    """Within it, a deliberate error of the engine fails the step. The error's sentence is the
    reason, and its class is metadata, by which the command line recognises it.

    A signal cancels a run of `fomo ui`, which stops its runs as it ends. Dagster by itself takes it
    for a failure, since nobody asked to terminate that run.
    """
    try:
        yield
    except FomoError as error:
        raise dg.Failure(
            str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from error
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError, StoppedError) as error:
        if UI in os.environ:
            context.instance.report_run_canceling(context.run)
        if isinstance(error, StoppedError):
            raise KeyboardInterrupt(str(error)) from error
        raise
