"""The device that a setting names."""

from __future__ import annotations

import torch

from fomo_dagster.errors import InputError


def device_of(name: str) -> torch.device:
    """The device `name`: auto (CUDA where it can be used, else the CPU), cpu, cuda, cuda:1, mps.

    Raises `InputError` for a name that is no device, or a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    available += ["cuda"] if torch.cuda.is_available() else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    if name not in available:
        raise InputError(
            f"execution.device {name!r} does not exist on this machine: use auto, or one "
            f"of {', '.join(available)}"
        )
    return torch.device(name)


def check_device(name: str, processes: int) -> None:
    """Raises `InputError` as `device_of`, and where each of the processes needs a CUDA device of
    its own and this machine has fewer."""
    there = torch.cuda.device_count()
    if device_of(name).type == "cuda" and processes > max(1, there):
        raise InputError(
            f"execution.processes is {processes}, and this machine has {there} CUDA "
            f"device{'s' * (there != 1)}: one for each is needed"
        )
