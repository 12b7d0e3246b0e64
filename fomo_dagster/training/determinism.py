"""What makes a training repeat bit for bit: the seed of each step, and deterministic kernels.

It repeats on the same machine with the same number of threads. Other hardware rounds differently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

from fomo_dagster.store.digests import digest_of

_memory: Any = torch.utils.deterministic  # a module whose properties type checkers do not see


def step_seed(seed: int, stage: int, step: int) -> int:
    """The seed of everything random within a step, so that no generator's state outlives it."""
    return int(digest_of([seed, stage, step])[:15], 16)  # 60 bits: room for what adds to it


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and of `device`.

    `torch.manual_seed` seeds all devices, which takes 0.5 ms if CUDA was not used yet: as much as a
    step of a small model.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Use only deterministic kernels within; torch's generators and settings are restored at the
    end.

    cuBLAS needs `CUBLAS_WORKSPACE_CONFIG`, which stays set.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    was_filling = _memory.fill_uninitialized_memory
    was_benchmarking = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    _memory.fill_uninitialized_memory = False  # costs, and changes nothing here
    torch.backends.cudnn.benchmark = False
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
        _memory.fill_uninitialized_memory = was_filling
        torch.backends.cudnn.benchmark = was_benchmarking
