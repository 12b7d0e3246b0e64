"""From the engine's errors to Dagster's failures."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from fomo_dagster.errors import FomoError


@contextmanager
def engine_failures() -> Iterator[None]:
    """Within it, a deliberate error of the engine fails the step. The error's sentence is the
    reason, and its class is metadata, by which the command line recognises it."""
    try:
        yield
    except FomoError as error:
        raise dg.Failure(
            str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from error
