"""The trackers of a command or a Dagster run. They do not affect each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fomo_dagster.trackers.tracker import Entry, Model, Run, Tracker
from fomo_dagster.trackers.tracker_queue import Job, Patience, Registration, TrackerQueue


class Trackers:
    """Sends to trackers, each through its own queue. Only `close` waits for them.

    kinds: name → what makes the tracker, called when there is something to send. ledgers: the
    folder of what each was sent. advice: name → what to do where the tracker fails.
    """

    def __init__(
        self,
        kinds: Mapping[str, Callable[[], Tracker]],
        ledgers: Path,
        patience: Patience = Patience(),  # noqa: B008
        advice: Mapping[str, str] = {},
    ) -> None:
        self._queues = [
            TrackerQueue(name, make, ledgers, patience, advice.get(name, ""))
            for name, make in kinds.items()
        ]

    @classmethod
    def none(cls) -> Trackers:
        """No tracker at all."""
        return cls({}, Path())

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._queues)

    def send(
        self, run: Run, entries: Callable[[], Iterable[Entry]], warn: Callable[[str], None]
    ) -> None:
        """Send entries of a run that its trackers do not have yet.

        warn: called once for each tracker that failed since the last call.
        """
        for queue in self._queues:
            queue.put(Job(run, entries))
        self._say(warn)

    def register(self, name: str, model: Callable[[], Model], warn: Callable[[str], None]) -> None:
        """Bring the trackers that register releases up to date. name: a release name; model: read
        when it is needed; warn: as of `send`."""
        for queue in self._queues:
            queue.put(Registration(name, model))
        self._say(warn)

    def close(self, warn: Callable[[str], None]) -> None:
        """Send what is waiting, and close the trackers."""
        for queue in self._queues:
            queue.end()
        ended = time.monotonic()
        for queue in self._queues:
            queue.wait(ended)
        self._say(warn)

    def _say(self, warn: Callable[[str], None]) -> None:
        for queue in self._queues:
            news = queue.news()
            if news is not None:
                warn(news)
