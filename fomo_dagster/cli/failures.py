"""From a failed Dagster run to the one error that a command ends with."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from fomo_dagster.errors import DataError, FomoError, InputError, StoreError, TrainingError

# What `assets.failures` writes down of an engine's error: its class, and its sentence.
KINDS = {kind.__name__: kind for kind in (InputError, DataError, StoreError, TrainingError)}
INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


def failure_of(result: dg.JobExecutionResult, assets: Mapping[str, str]) -> tuple[str, FomoError]:
    """The asset that failed first, and its failure: the engine's own error, or what another one
    says and where to read on. assets: by the names of their steps."""
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        failed = event.step_failure_data
        asset = _asset_of(event, assets)
        known = failed.user_failure_data
        if known is not None:
            kind = str(known.metadata["error"].value) if "error" in known.metadata else ""
            return asset, KINDS.get(kind, StoreError)(f"{asset}: {known.description}")
        error = failed.error
        cause = error.cause if error is not None and error.cause is not None else error
        message = cause.message.strip() if cause is not None else "no reason was given"
        where = f"run {result.run_id}; its log is in the UI"
        return asset, StoreError(f"{asset} failed: {message} ({where})")
    return "", StoreError(f"run {result.run_id} failed; see it in the UI")


def interruption_of(result: dg.JobExecutionResult, assets: Mapping[str, str]) -> str | None:
    """What the interrupted step says of where it stopped; None where none says anything."""
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            name, _, said = error.message.strip().partition(": ")
            if error.cls_name in INTERRUPTIONS and said and name.endswith("KeyboardInterrupt"):
                return f"{_asset_of(event, assets)}: {said}"
            error = error.cause
    return None


def _asset_of(event: dg.DagsterEvent, assets: Mapping[str, str]) -> str:
    return assets.get(event.step_key or "", "a step")
