"""Several machines that work on one experiment, as its file says it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from fomo_dagster.data.declarations import Declaration

_ENDPOINT = re.compile(r"[^\s:]+:\d{1,5}")


class Machines(Declaration):
    """Several machines that share FOMO_HOME, each with so many processes.

    `start` is put before the command that every machine has to run. Without it, this machine runs
    the command, and its log says what to run on the others.
    """

    count: int = Field(ge=2)
    rendezvous: str = Field(
        description="host:port, where torchrun's processes meet: one of the machines, a free port."
    )
    start: tuple[str, ...] = Field(
        (), description="What runs a command on each, as `[srun, --ntasks-per-node=1]`."
    )

    @field_validator("rendezvous")
    @classmethod
    def _is_an_endpoint(cls, rendezvous: str) -> str:
        if not _ENDPOINT.fullmatch(rendezvous):
            raise ValueError(f"{rendezvous!r} is not host:port, as in node01:29500")
        return rendezvous
