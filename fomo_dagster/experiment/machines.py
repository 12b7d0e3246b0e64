"""The declaration of several machines that work on one experiment."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from fomo_dagster.data.declarations import Declaration

_ENDPOINT = re.compile(r"\w[\w.-]*:(\d{1,5})")


class Machines(Declaration):
    """Several machines that share FOMO_HOME, each with `processes` processes.

    `start` precedes the command that every machine must run. Without it, this machine runs the
    command, and its log says what to run on the others.
    """

    count: int = Field(ge=2, description="Number of machines.")
    rendezvous: str = Field(
        description="host:port where torchrun's processes meet: one of the machines, and a free "
        "port."
    )
    interface: str | None = Field(
        None,
        pattern=r"^[\w.:-]+$",
        description="The network interface between the machines, such as `eth0`; nothing then "
        "listens elsewhere. null: the interface of `rendezvous`, and for NCCL the one "
        "that it chooses.",
    )
    start: tuple[str, ...] = Field(
        (),
        description="What runs a command on each machine, such as `[srun, --ntasks-per-node=1]`.",
    )

    @field_validator("rendezvous")
    @classmethod
    def _is_an_endpoint(cls, rendezvous: str) -> str:
        found = _ENDPOINT.fullmatch(rendezvous)
        if found is None or not 1 <= int(found[1]) <= 65535:
            raise ValueError(f"{rendezvous!r} is not host:port, as in node01:29500")
        return rendezvous
