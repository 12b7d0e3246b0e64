"""Where and how fast an experiment runs: no part of any artifact's identity."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.machines import Machines

DEVICE = re.compile(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]*))?")


class Execution(Declaration):
    """Where and how fast things run. It is never part of identity."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    processes: int = Field(
        1,
        ge=1,
        description="Processes on each machine that train a stage together and divide the "
        "datasets of an evaluation. Each has its own CUDA device.",
    )
    machines: Machines | None = Field(None, description="Several machines; null: only this one.")
    sharded: bool = Field(
        False,
        description="Divide weights, gradients and the optimiser's state among the processes of a "
        "training (FSDP2), for models that are too large for one device.",
    )
    workers: int = Field(0, ge=0, description="Processes that load training batches.")
    cpus: int | None = Field(
        None,
        ge=1,
        description="Cores of a machine that a cluster sets aside for a training or an evaluation; "
        "null: one for each process and each of its workers.",
    )
    memory_gib: float | None = Field(
        None,
        gt=0,
        description="Memory of a machine that a cluster sets aside for a training or an "
        "evaluation; null: none is.",
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="Samples on the device at once (GradCache); null: the whole batch."
    )
    gradient_checkpointing: bool = Field(
        False, description="Save memory by computing activations twice."
    )
    compile: bool = Field(
        False, description="Compile the towers with torch.compile. Only rounding differs."
    )
    evaluation_batch_size: int = Field(
        256, ge=1, description="Samples on the device at once in evaluation."
    )
    decoded_cache_gib: float | None = Field(
        None,
        gt=0,
        description="Disk space for decoded training and test images, in the cache folder, so that "
        "each is decoded once; null: none are kept.",
    )
    shard_cache_gib: float = Field(
        50.0,
        gt=0,
        description="Disk space for fetched tars of streamed datasets, in the cache folder.",
    )
    resume_seconds: float = Field(60.0, gt=0, description="Seconds between resume points.")
    resume_remote: bool = Field(
        False,
        description="Copy resume points to the remote store (FOMO_STORE), so that another machine "
        "goes on where this one was lost.",
    )

    @field_validator("device")
    @classmethod
    def _can_be_a_device(cls, device: str) -> str:
        if DEVICE.fullmatch(device) is None:
            raise ValueError("a device is auto, cpu, cuda, cuda:N for the N-th from 0, or mps")
        return device

    @property
    def all_processes(self) -> int:
        """The number of processes on all machines."""
        return self.processes * (self.machines.count if self.machines is not None else 1)

    @model_validator(mode="after")
    def _can_share_weights_out(self) -> Execution:
        if self.sharded and self.all_processes == 1:
            raise ValueError(
                "sharded divides weights among the processes of a training, but processes "
                "is 1: raise it, or leave sharded out"
            )
        if self.sharded and self.compile:
            raise ValueError(
                "sharded and compile exclude each other: a compiled tower needs its weights "
                "whole; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _processes_have_devices(self) -> Execution:
        if self.all_processes > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"device is {self.device!r}, but each of the {self.all_processes} processes "
                "needs its own device: use auto, cuda or cpu"
            )
        return self
