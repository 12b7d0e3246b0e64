"""Ends this process before an operation of a chosen number."""

import os
import signal
from collections.abc import Sequence
from typing import Any


def killed_before(number: int, operations: Sequence[tuple[Any, str]]) -> None:
    """From now on, be killed before the operation of that number, from 0. operations: each as what
    has it, and its name there."""
    left = [number]

    def counted(operation: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return operation(*arguments, **options)

        return call

    for owner, name in operations:
        setattr(owner, name, counted(getattr(owner, name)))
