"""From a failed Dagster run to the one error that a command ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from fomo_dagster.errors import DataError, FomoError, InputError, StoreError, TrainingError
from fomo_dagster.training.interruption import STOPPING

# What `assets.failures` writes down of an engine's error: its class, and its sentence.
KINDS = {kind.__name__: kind for kind in (InputError, DataError, StoreError, TrainingError)}
SIGNALS = {signal.name for signal in STOPPING}
INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


def failures_of(result: dg.JobExecutionResult, assets: Mapping[str, str]) -> dict[str, FomoError]:
    """The assets that failed, and why: the engine's own error, or what another one says and where
    to read on. assets: by the names of their steps. Raises `StoreError` if none of them failed, and
    the run did."""
    failures: dict[str, FomoError] = {}
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        failed = event.step_failure_data
        asset = _asset_of(event, assets)
        known = failed.user_failure_data
        if known is not None:
            kind = str(known.metadata["error"].value) if "error" in known.metadata else ""
            failures[asset] = KINDS.get(kind, StoreError)(f"{asset}: {known.description}")
            continue
        error = failed.error
        cause = error.cause if error is not None and error.cause is not None else error
        message = cause.message.strip() if cause is not None else "no reason was given"
        where = f"run {result.run_id}; its log is in the UI"
        failures[asset] = StoreError(f"{asset} failed: {message} ({where})")
    if not failures:
        raise StoreError(f"run {result.run_id} failed; see it in the UI")
    return failures


def interruption_of(result: dg.JobExecutionResult, assets: Mapping[str, str]) -> str | None:
    """What interrupted steps say of where they stopped, each that kept a resume point, or else one;
    None where none says anything."""
    said = list(dict.fromkeys(_interruptions(result, assets)))
    kept = [one for one in said if one.split(": ")[-1] not in SIGNALS]
    return "; ".join(kept or said[:1]) or None


def _interruptions(result: dg.JobExecutionResult, assets: Mapping[str, str]) -> Iterator[str]:
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            name, _, said = error.message.strip().partition(": ")
            if error.cls_name in INTERRUPTIONS and said and name.endswith("KeyboardInterrupt"):
                yield f"{_asset_of(event, assets)}: {said}"
            error = error.cause


def _asset_of(event: dg.DagsterEvent, assets: Mapping[str, str]) -> str:
    return assets.get(event.step_key or "", "a step")
