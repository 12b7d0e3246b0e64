"""What happened to a release name, as records that are only ever added.

`<home>/releases/<name>/000001.json` and so on. A record is created whole, and of several who want
the next number one gets it: what is live moves with that file, so nobody ever sees it half moved.
What is live, and every other alias, is what the records say up to the last one.

With a remote store the records are there, and the folder is their copy, so that all machines that
share the store have one history.
"""

from __future__ import annotations

import itertools
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.exporting.subject import DataUse, Provenance
from fomo_dagster.home import Home
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.store.files import create_bytes
from fomo_dagster.store.sealed import sealed, unsealed
from fomo_dagster.tables.json_files import OF_RELEASES
from fomo_dagster.tables.runs import person

FOLDER = OF_RELEASES.folder
LIVE, PREVIOUS = "live", "previous"
_REMOTE_FOLDER = ".releases"
_PROJECT, _JOINED = "project", "joined"  # files with who writes the records, and whom else to trust

Kind: TypeAlias = Literal["release", "rollback", "refusal", "alias", "files"]


class OvertakenError(InputError):
    """Somebody else's record came first."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stage that is up for release.

    checkpoint: the data version of the weights that it deploys; weights: their kind and digest in
    the store. backbone: its declaration. evaluations: dataset → digest; roles: dataset →
    adaptation or held_out. scores: metric → percent. lineage: asset → data version of all that the
    weights were made from; provenance: the same for people, with licences as they were declared.
    """

    experiment: str
    stage: int
    checkpoint: str
    weights: tuple[str, str]
    backbone: Mapping[str, Any]
    evaluations: Mapping[str, str]
    scores: Mapping[str, float | None]
    lineage: Mapping[str, str]
    roles: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None  # none in records from before there were any

    @property
    def shown(self) -> str:
        return f"{self.experiment}, stage {self.stage}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Something that happened.

    entry: its number, from 1. release: the number that was given (release), gone back to
    (rollback), named (alias; None where the alias was removed) or written as files. live: the
    number that is live from then on. reference: the number that the candidate was held against.
    reason: what a person gave as one. files: the kind and digest in the store of what was written,
    which has these forms.
    """

    name: str
    entry: int
    kind: Kind
    recorded_at: str
    person: str | None
    host: str
    project: str
    release: int | None = None
    live: int | None = None
    alias: str | None = None
    approval: str | None = None
    reason: str = ""
    reference: int | None = None
    candidate: Candidate | None = None
    gates: tuple[Verdict, ...] = ()
    files: tuple[str, str] | None = None
    forms: tuple[str, ...] = ()

    @property
    def by(self) -> str:
        return f"{self.person or 'somebody'} at {self.host}"


@dataclass(frozen=True)
class History:
    """The records of a name, in order."""

    name: str
    records: tuple[Record, ...] = ()

    @property
    def releases(self) -> Mapping[int, Record]:
        """Number → the record that gave it."""
        return {r.release: r for r in self.records if r.kind == "release" and r.release is not None}

    @property
    def live(self) -> int | None:
        """The number of what is live."""
        return self.records[-1].live if self.records else None

    @property
    def live_candidate(self) -> Candidate | None:
        """What is live."""
        return None if self.live is None else self.releases[self.live].candidate

    @property
    def live_shown(self) -> str:
        """What is live, to a person."""
        return "nothing" if self.live is None else self.shown(self.live)

    def shown(self, number: int) -> str:
        """A release, to a person."""
        candidate = self.releases[number].candidate
        return f"release {number}" + (f" ({candidate.shown})" if candidate is not None else "")

    @property
    def since(self) -> str | None:
        """When what is live was put there."""
        found = None
        for before, record in itertools.pairwise((None, *self.records)):
            if record is not None and (before is None or before.live != record.live):
                found = record.recorded_at
        return found

    @property
    def aliases(self) -> Mapping[str, int]:
        """Alias → number, without `live`; `previous` is what was live before."""
        found: dict[str, int] = {}
        live: int | None = None
        for record in self.records:
            if record.alias is not None:
                found.pop(record.alias, None)
                if record.release is not None:
                    found[record.alias] = record.release
            if record.live != live and live is not None:
                found[PREVIOUS] = live
            live = record.live
        return found

    @property
    def removed_aliases(self) -> frozenset[str]:
        """Those that were given and stand for nothing any more."""
        given = {one.alias for one in self.records if one.alias is not None}
        return frozenset(given - self.aliases.keys())

    def called(self, alias: str) -> int | None:
        """The number that `live` or another alias stands for; None where it stands for none."""
        return self.live if alias == LIVE else self.aliases.get(alias)

    def release(self, number: int) -> Record:
        """Raises `InputError` where there is no such release."""
        if number not in self.releases:
            last = max(self.releases, default=0)
            there = f"there are 1 to {last}" if last else "nothing was released yet"
            raise InputError(f"{self.name} has no release {number}: {there}")
        return self.releases[number]

    def released_as(self, checkpoint: str) -> int | None:
        """The number of these weights, if they were released; the last one."""
        numbers = [
            number
            for number, record in self.releases.items()
            if record.candidate is not None and record.candidate.checkpoint == checkpoint
        ]
        return max(numbers, default=None)

    def was_refused(self, checkpoint: str, reference: int | None) -> bool:
        """Whether these weights were, when they were held against that release."""
        return any(
            record.kind == "refusal"
            and record.candidate is not None
            and (record.candidate.checkpoint, record.reference) == (checkpoint, reference)
            for record in self.records
        )


@dataclass(frozen=True)
class ReleaseLog:
    """The records of a release name in a home."""

    home: Home
    name: str
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folder", self.home.root / FOLDER / self.name)

    def read(self) -> History:
        """The history as it is now. Raises `StoreError` where a record is damaged, and `InputError`
        where the records of the store are another project's."""
        self._fetch()
        records: list[Record] = []
        while (data := self._local(len(records) + 1)) is not None:
            records.append(self._parsed(len(records) + 1, data))
        return History(self.name, tuple(records))

    def read_after(self, history: History) -> History:
        """The history as it is now, for the price of one look where nothing happened since. Raises
        as `read`."""
        entry, remote = len(history.records) + 1, self._remote()
        is_newer = self._local(entry) is not None or (
            remote is not None and remote.read(_file_of(entry)) is not None
        )
        return self.read() if is_newer else history

    def append(self, history: History, kind: Kind, **values: Any) -> Record:
        """Add what follows from a history. What `values` leave out stays: `live` above all.

        Raises `OvertakenError` where another record came meanwhile; of files that were written
        any number may, since they decide nothing.
        """
        record = Record(
            name=self.name,
            entry=len(history.records) + 1,
            kind=kind,
            recorded_at=datetime.now(UTC).isoformat(),
            person=person(),
            host=socket.gethostname(),
            project=self._project(),
            **{"live": history.live, **values},
        )
        while not self._create(record.entry, sealed(asdict(record))):
            newer = self.read()
            came = newer.records[record.entry - 1 :]
            other = next((one for one in came if one.kind != "files"), None)
            if other is None:
                record = replace(record, entry=len(newer.records) + 1)
                continue
            raise OvertakenError(
                f"{self.name}: {other.by} recorded a {other.kind} first, at {other.recorded_at}, "
                f"and release {newer.live} is live: look at `fomo releases {self.name}`, and again"
            )
        return record

    def join(self) -> str:
        """Take part in the history that another home began on the shared store; whose it is."""
        remote = self._remote()
        data = remote.read(_file_of(1)) if remote is not None else None
        if data is None:
            raise InputError(f"{self.name} has no records on a shared store that could be joined")
        first = self._parsed(1, data)
        if self._local(1) not in (None, data):
            raise InputError(
                f"{self.name} has records of its own here ({self._folder}), and others on the "
                "shared store: give the release another name"
            )
        create_bytes(self._folder / _JOINED, first.project.encode())
        return first.by

    def _fetch(self) -> None:
        """Bring the folder and the store to the same records."""
        remote = self._remote()
        if remote is None:
            return
        entry = 1
        while self._local(entry + 1) is not None:
            entry += 1
        if self._local(entry) != remote.read(_file_of(entry)):  # else all before it are the same
            entry = 1
        while True:
            here, there = self._local(entry), remote.read(_file_of(entry))
            if here is None and there is None:
                return
            if here is None and there is not None:
                self._check_is_ours(self._parsed(entry, there))
                create_bytes(self._folder / _file_of(entry), there)
            elif here is not None and there is None:
                self._create(entry, here)
                continue  # and compare
            elif here != there and there is not None:
                self._refuse(self._parsed(entry, there))
            entry += 1

    def _check_is_ours(self, record: Record) -> None:
        """A home that has no part in what is on the store yet is told whose that is."""
        if record.entry != 1 or record.project == self._project():
            return
        joined = self._folder / _JOINED
        if not joined.is_file() or joined.read_text() != record.project:
            self._refuse(record)

    def _refuse(self, record: Record) -> None:
        of = f" ({record.candidate.shown})" if record.candidate is not None else ""
        raise InputError(
            f"the release name {self.name!r} is taken on {self.home.remote_url}: {record.by} "
            f"recorded a {record.kind} there, at {record.recorded_at}{of}, from another home. Give "
            f"yours another name, or, if both are of one project, `fomo releases {self.name} "
            "--join`"
        )

    def _create(self, entry: int, data: bytes) -> bool:
        """Whether this record is the one of that number."""
        remote = self._remote()
        if remote is None:
            return create_bytes(self._folder / _file_of(entry), data)
        # A request whose answer was lost is sent again, and then finds what it made.
        if not remote.create(_file_of(entry), data) and remote.read(_file_of(entry)) != data:
            return False
        create_bytes(self._folder / _file_of(entry), data)
        return True

    def _remote(self) -> Any:
        remote = self.home.store.remote
        if remote is None:
            return None
        if not remote.has_claims:
            raise InputError(
                f"releases on {self.home.remote_url} could overtake each other unseen, since it "
                "has no way to create a file unless there is one: use S3, GCS or a shared folder "
                "for FOMO_STORE"
            )
        return remote.folder(f"{_REMOTE_FOLDER}/{self.name}")

    def _local(self, entry: int) -> bytes | None:
        path = self._folder / _file_of(entry)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror})") from error

    def _parsed(self, entry: int, data: bytes) -> Record:
        path = self._folder / _file_of(entry)
        try:
            record = _record_of(unsealed(data))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            elsewhere = (
                "remove it, and it is fetched again"
                if self.home.remote_url
                else "restore it from a backup; without it nobody knows what is live"
            )
            raise StoreError(f"the record {path} is damaged ({error}): {elsewhere}") from error
        if (record.name, record.entry) != (self.name, entry):
            raise StoreError(
                f"the record {path} is entry {record.entry} of {record.name!r}: restore the one "
                "that belongs there"
            )
        return record

    def _project(self) -> str:
        """Who writes here: the same for all names and processes of a home."""
        path = self.home.root / FOLDER / _PROJECT
        if not path.is_file():
            create_bytes(path, uuid.uuid4().hex.encode())
        return path.read_text()


def names_of(home: Home) -> list[str]:
    """The release names that have records in a home."""
    return sorted(path.parent.name for path in (home.root / FOLDER).glob(f"*/{_file_of(1)}"))


def names_elsewhere(home: Home) -> list[str]:
    """The release names that have records on the shared store and none in a home."""
    remote = home.store.remote
    if remote is None:
        return []
    found = (path.partition("/") for path in remote.folder(_REMOTE_FOLDER).names())
    return sorted({name for name, _, file in found if file == _file_of(1)} - {*names_of(home)})


def _file_of(entry: int) -> str:
    return f"{entry:06d}.json"


def _record_of(data: Mapping[str, Any]) -> Record:
    """From a file, which may have been written with older or newer fields."""
    record = Record(**_known(Record, data))
    candidate = data.get("candidate")
    if candidate is not None:
        candidate = _candidate_of(candidate)
    gates = tuple(Verdict(**verdict) for verdict in data["gates"])
    files = None if record.files is None else (record.files[0], record.files[1])
    return replace(record, candidate=candidate, gates=gates, files=files, forms=tuple(record.forms))


def _candidate_of(data: Mapping[str, Any]) -> Candidate:
    kept = _known(Candidate, data) | {"weights": tuple(data["weights"])}
    told = kept.get("provenance")
    if told is not None:
        uses = tuple(DataUse(**_known(DataUse, one)) for one in told["data"])
        told = _known(Provenance, told) | {"data": uses, "foreign": tuple(told["foreign"])}
        kept["provenance"] = Provenance(**told)
    return Candidate(**kept)


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some fields that a dataclass has."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
