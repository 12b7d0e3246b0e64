"""Several machines that work on one experiment, as its file says it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from fomo_dagster.data.declarations import Declaration

_ENDPOINT = re.compile(r"\w[\w.-]*:(\d{1,5})")


class Machines(Declaration):
    """Several machines that share FOMO_HOME, each with so many processes.

    `start` is put before the command that every machine has to run. Without it, this machine runs
    the command, and its log says what to run on the others.
    """

    count: int = Field(ge=2)
    rendezvous: str = Field(
        description="host:port, where torchrun's processes meet: one of the machines, a free port."
    )
    interface: str | None = Field(
        None,
        pattern=r"^[\w.:-]+$",
        description="The network interface that they reach each other by, as `eth0`, where nothing "
        "else is to be listened on; null: what `rendezvous` stands for, and what NCCL chooses.",
    )
    start: tuple[str, ...] = Field(
        (), description="What runs a command on each, as `[srun, --ntasks-per-node=1]`."
    )

    @field_validator("rendezvous")
    @classmethod
    def _is_an_endpoint(cls, rendezvous: str) -> str:
        found = _ENDPOINT.fullmatch(rendezvous)
        if found is None or not 1 <= int(found[1]) <= 65535:
            raise ValueError(f"{rendezvous!r} is not host:port, as in node01:29500")
        return rendezvous
