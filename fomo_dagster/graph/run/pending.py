"""Steps of a run of which nobody knows yet whether they are about to want a device.

When a training ends, its evaluation and the next training are ready at once, and each asks for a
device a moment later. If one that is free just then went to whoever asks first, an evaluation of
hours could hold up its experiment. So it is left to what goes first, for as long as that can take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

MOST_SECONDS = 5.0  # that a device is left free for a step


class Pending:
    """The steps of a run that have begun, and since when they may be about to want a device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float | None] = {}  # None: it has asked, or waits for something else

    def begin(self, steps: Iterable[str]) -> None:
        """Steps begin, all of them before the first of them asks."""
        with self._lock:
            self._since.update(dict.fromkeys(steps, time.monotonic()))

    def end(self, step: str) -> None:
        """What follows a step has begun."""
        with self._lock:
            self._since.pop(step, None)

    def may_ask(self, step: str, *, now: bool) -> None:
        """Whether a step, or what follows it, may be about to ask."""
        with self._lock:
            if step in self._since:
                self._since[step] = time.monotonic() if now else None

    def steps(self) -> list[str]:
        """Those that may be about to ask."""
        least = time.monotonic() - MOST_SECONDS
        with self._lock:
            return [step for step, since in self._since.items() if since and since > least]


@cache
def pending_of(run: str) -> Pending:
    """Those of a run, by its id, in this process."""
    return Pending()


class Place:
    """Where a step stands among those that want devices: the greatest priority goes first.

    priorities: by steps.
    """

    def __init__(
        self,
        step: str = "",
        priorities: Mapping[str, float] | None = None,
        pending: Pending | None = None,
    ) -> None:
        self._step = step
        self._priorities = priorities or {}
        self._pending = pending or Pending()
        self.priority = self._priorities.get(step, 0.0)

    def must_wait(self) -> bool:
        """Whether a step that goes first may be about to ask."""
        return any(
            self._priorities.get(step, 0.0) > self.priority for step in self._pending.steps()
        )

    def leave(self) -> None:
        """It waits for something else than a device: nothing is left free for it."""
        self._pending.may_ask(self._step, now=False)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Within it, it wants a device or has it. Then what follows it may be about to ask."""
        self.leave()
        try:
            yield
        finally:
            self._pending.may_ask(self._step, now=True)
