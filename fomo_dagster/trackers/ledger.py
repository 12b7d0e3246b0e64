"""What a tracker was sent, so that nothing is sent twice: one small file for each run's name.

A run holds one digest for each key. What was made differently, for example after a change of the
experiment, belongs to another run: to an earlier one that has it, or to a new one with a number in
its name. A file is read and replaced under a lease.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fomo_dagster.errors import DataError
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.leases import lease
from fomo_dagster.trackers.tracker import Entry, Point


@dataclass
class Sent:
    """What one run was sent. known: key → its digest, and the step after the last one sent."""

    name: str
    id: str | None = None
    points: int = 0
    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def has(self, entry: Entry) -> bool:
        """Whether the run has any of it, with the same digest."""
        return self.known.get(entry.key, ("", 0))[0] == entry.digest

    def fits(self, entry: Entry) -> bool:
        """Whether the run holds nothing different under this key."""
        return entry.key not in self.known or self.has(entry)

    def missing(self, entry: Entry) -> list[Point]:
        """The points that the run does not have yet."""
        after = self.known[entry.key][1] if entry.key in self.known else -1
        return [point for point in entry.points if point.step >= after]

    def note(self, entry: Entry) -> None:
        """Count `entry` as sent."""
        steps = [point.step + 1 for point in entry.points]
        _, after = self.known.get(entry.key, ("", 0))
        self.points += len(self.missing(entry))
        self.known[entry.key] = (entry.digest, max([after, *steps]))


@dataclass
class Account:
    """The runs of one name; the last one is continued."""

    name: str
    runs: list[Sent]
    path: Path

    def save(self) -> None:
        """Write the current state."""
        runs = [asdict(run) for run in self.runs]
        write_bytes(self.path, json.dumps(runs).encode())

    def run_of(self, entry: Entry) -> Sent:
        """The run that an entry belongs to, which then becomes the one to continue."""
        if not self.runs or not self.runs[-1].fits(entry):
            there = [run for run in self.runs if run.has(entry)]
            number = len(self.runs) + 1
            new = Sent(self.name if number == 1 else f"{self.name}_{number}")
            run = there[-1] if there else new
            self.runs = [*(other for other in self.runs if other is not run), run]
        return self.runs[-1]


@dataclass(frozen=True)
class Noted:
    """What was registered of a release name. digest: of all of it; None: nothing yet."""

    path: Path
    digest: str | None

    def save(self, digest: str) -> None:
        """It is registered as this now."""
        write_bytes(self.path, digest.encode())


@dataclass(frozen=True)
class Ledger:
    """The accounts of a tracker's destination, in a folder. Raises `DataError` for one that is
    damaged."""

    folder: Path

    @contextlib.contextmanager
    def account(self, name: str) -> Iterator[Account]:
        """The account of a name, alone among all processes."""
        path = self.folder / f"{name}.json"
        with lease(path.with_suffix(".lease")):
            try:
                runs = [_sent(run) for run in json.loads(path.read_text())] if path.exists() else []
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}, which records what was sent, cannot be read: delete it to send "
                    "everything again"
                ) from error
            yield Account(name, runs, path)

    @contextlib.contextmanager
    def registered(self, name: str) -> Iterator[Noted]:
        """What was registered of a release name, alone among all processes."""
        path = self.folder / "releases" / f"{name}.txt"
        with lease(path.with_suffix(".lease")):
            yield Noted(path, path.read_text() if path.exists() else None)


def _sent(run: dict[str, object]) -> Sent:
    known = run.pop("known")
    assert isinstance(known, dict)
    sent = Sent(**run)  # type: ignore[arg-type]
    sent.known = {key: (digest, after) for key, (digest, after) in known.items()}
    return sent
