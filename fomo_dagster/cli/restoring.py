"""`fomo run --restore`: weights that were cleaned, and that an experiment retains, come back."""

from __future__ import annotations

from collections.abc import Sequence

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.graph.run.retention import restore
from fomo_dagster.graph.run.run_context import RunContext


def restore_weights(name_or_path: str, overrides: Sequence[str]) -> None:
    """Have a run of an experiment or a sweep make the weights again that it retains."""
    request = resolve_request(name_or_path, overrides)
    context = RunContext(request.graph, request.home)
    for member in request.each():
        restore(member.experiment.name, context)
