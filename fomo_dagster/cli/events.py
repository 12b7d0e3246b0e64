"""The events of `fomo run --json`: the fields of each kind.

`docs/hooks.py` makes the reference from these models. Fields are added over time, and none is
renamed or removed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field


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
    experiment: str = Field(
        description="The experiment, sweep or comparison, as the command names it."
    )
    settings: list[str] = Field(description="What `--set` changes.")
    version: str = Field(description="The version of this package.")


class ExperimentStarted(Event):
    """An experiment begins. Those of a sweep or a comparison begin and end in any order."""

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
    asset: str | None = Field(
        description="The asset that is made, or about to be: work can go on before `asset_started`."
    )
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
    """An asset or the whole run waits for another process, or for another asset to give a device
    back. `waited` follows when the wait is over."""

    name = "waiting"
    asset: str | None = Field(
        description="The asset that waits; null if the whole run does. Of a stream's chunks, which "
        "are made together, what their keys begin with."
    )
    reason: str = Field(description="What it waits for, for people.")


class Waited(Event):
    """The wait is over."""

    name = "waited"
    asset: str | None = Field(description="The asset that waited; null if the whole run did.")
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
    asset: str = Field(description="The asset's key; of chunks, what their keys begin with.")
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


class WeightsCleaned(Event):
    """Weights were removed that the experiment does not retain."""

    name = "weights_cleaned"
    experiment: str = Field(description="The experiment's name.")
    artifacts: int = Field(description="How many.")
    bytes: int = Field(description="What that frees on this disk.")


class WeightsPacked(Event):
    """Weights are kept packed from now on, as `retention.pack` says."""

    name = "weights_packed"
    experiment: str = Field(description="The experiment's name.")
    artifacts: int = Field(description="How many.")
    bytes: int = Field(description="What that frees on this disk.")


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
    AssetFinished, AssetFailed, WeightsCleaned, WeightsPacked, ExperimentFinished, RunFinished,
)  # fmt: skip
