"""Which artifact a gallery is, as the live release or an earlier one embedded it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.names import SAFE_NAME
from fomo_dagster.galleries.declaration import FIRST_ROWS, FOLDER, reference_of
from fomo_dagster.galleries.files import EMBEDDINGS, INDEX
from fomo_dagster.home import Home
from fomo_dagster.releases.live import weights_of
from fomo_dagster.releases.records import LIVE, Candidate, History, ReleaseLog
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.heads import Head
from fomo_dagster.store.notes import note_of
from fomo_dagster.store.roots import GALLERY_INDEX
from fomo_dagster.tables.store_files import OF_GALLERIES

KIND = OF_GALLERIES.kind


@dataclass(frozen=True)
class FoundGallery:
    """A gallery as one release embedded it.

    number: the release; followed: the number of the one that the gallery follows now. facts: what
    its head says, of how it is now. rest: where it is being refreshed, by what the rows are found
    that are not embedded anew yet, what is to be asked first first.
    """

    home: Home
    name: str
    number: int
    followed: int | None
    facts: Mapping[str, Any]
    precision: str
    artifact: Artifact
    candidate: Candidate
    rest: tuple[FoundGallery, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it has all rows of the gallery."""
        return FIRST_ROWS not in self.artifact.manifest["recipe"]["parameters"]

    @property
    def file(self) -> Path:
        """The embeddings."""
        return self.artifact.path(EMBEDDINGS)

    @cached_property
    def weights(self) -> Artifact:
        """Those that embedded it. Raises `InputError` where they are no longer in the store."""
        name, wanted_by = self.facts["release"], f"{FOLDER}/{self.name}"
        return weights_of(self.home, name, self.number, self.candidate, wanted_by)

    @property
    def embedded_by(self) -> str:
        """Who embedded it, to a person."""
        return f"release {self.number} of {self.facts['release']} ({self.candidate.shown})"


def embedded_gallery(home: Home, name: str, number: int | None = None) -> FoundGallery:
    """The gallery as it is now, or as a release embedded it. Raises `InputError`, with the way out,
    where it was never made, nothing embedded it yet, or the store no longer has it."""
    head = head_of(home, name)
    return gallery_of(home, head, ReleaseLog(home, head.facts["release"]).read(), number)


def gallery_of(home: Home, head: Head, history: History, number: int | None = None) -> FoundGallery:
    """As `embedded_gallery`. history: of the name whose releases embed it."""
    if number is not None:
        return _as_embedded_by(number, home, head, history)
    number = head.facts.get("number")
    if number is None:
        raise InputError(
            f"nothing was {head.facts['follows']} as {history.name} when {head.asset} was "
            "made, so it is empty: `fomo promote` puts a stage live, `fomo alias` names a "
            f"release, and then `fomo run {head.asset}` embeds it"
        )
    found = _as_embedded_by(number, home, head, history)
    numbers = [history.released_as(weights) for weights in embedders_of(head)[1:]]
    rest = tuple(_as_embedded_by(one, home, head, history) for one in numbers if one is not None)
    return replace(found, rest=rest)


def gallery_before(
    home: Home, head: Head, history: History, answers: Callable[[int], bool]
) -> FoundGallery | None:
    """The gallery as releases embedded it that are known and of which `answers` holds, before it
    became what it is: the latest one, with those that have the rows that it does not have. None
    where they no longer have all rows in the store."""
    parts: list[FoundGallery] = []
    for weights, _ in reversed(head.facts["earlier"]):
        number = history.released_as(weights)
        if number is None or not answers(number):
            continue
        try:
            parts.append(_as_embedded_by(number, home, head, history))
        except InputError:  # no longer in the store
            continue
        if parts[-1].is_whole:
            return replace(parts[0], rest=tuple(parts[1:]))
    return None


def embedders_of(head: Head) -> list[str]:
    """The data versions of the weights that embedded what a gallery is now, its own first, and
    then those of its rest; none where it is empty."""
    if head.facts.get("number") is None:
        return []
    made_by = {digest: weights for weights, digest in head.facts["earlier"]}
    return [head.facts["weights"], *(made_by[digest] for digest in head.facts.get("rest", ()))]


def _as_embedded_by(number: int, home: Home, head: Head, history: History) -> FoundGallery:
    candidate = history.release(number).candidate
    assert candidate is not None  # of every release
    wanted = candidate.checkpoint
    digest = dict(head.facts["earlier"]).get(wanted)
    if wanted == head.facts["weights"]:
        digest = head.digest
    artifact = None if digest is None else home.store.open(KIND, digest)
    if artifact is None:
        raise InputError(_why_absent(home, head, history, number, digest))
    followed = history.called(head.facts["follows"])
    precision = artifact.manifest["recipe"]["parameters"]["precision"]
    name = head.asset.partition("/")[2]
    return FoundGallery(home, name, number, followed, head.facts, precision, artifact, candidate)


def index_of(home: Home, gallery: FoundGallery) -> Path | None:
    """The index of a gallery as it was found; None where it has none, or none of these embeddings
    yet."""
    head = home.heads.read(f"{reference_of(gallery.name)}/index")
    if head is None:
        return None
    for digest in (head.digest, *(digest for _, digest in head.facts["earlier"])):
        artifact = home.store.open(GALLERY_INDEX, digest)
        if artifact is not None and artifact.manifest["recipe"]["inputs"] == {
            "gallery": gallery.artifact.digest
        }:
            return artifact.path(INDEX) if INDEX in artifact.manifest["files"] else None
    return None


def head_of(home: Home, name: str) -> Head:
    """What a gallery is now. Raises `InputError` where it was never made, or is none, as its index
    and its drift."""
    plain = name.removeprefix(f"{FOLDER}/")
    head = home.heads.read(reference_of(plain)) if SAFE_NAME.fullmatch(plain) else None
    if head is None:
        known = {key.split("/")[1] for key in home.heads.below(FOLDER)}
        there = nearest(plain.partition("/")[0], known) if known else "none was made yet"
        raise InputError(
            f"the gallery {name!r} was never made (a file of {FOLDER}/ declares one, and `fomo run "
            f"{FOLDER}/NAME` makes it): {there}"
        )
    return head


def _why_absent(home: Home, head: Head, history: History, number: int, digest: str | None) -> str:
    said = f"{head.asset} as {history.shown(number)} of {history.name} embedded it "
    if digest is None:
        said += "was never made"
    else:
        day = note_of(home.store.places.cleaned(KIND, digest)).day
        said += "is no longer in the store" if day is None else f"was cleaned on {day}"
    if number == history.called(head.facts["follows"]):
        return f"{said}: `fomo run {head.asset}` embeds it again"
    there = head.facts.get("number")
    way = "" if there is None else f"leave out --release to search release {there}'s, or "
    return f"{said}: {way}{_move(head, number)} and `fomo run {head.asset}` embed it again"


def _move(head: Head, number: int) -> str:
    """The command by which the gallery follows another release."""
    name, alias = head.facts["release"], head.facts["follows"]
    if alias == LIVE:
        return f"`fomo rollback {name} --to {number}`"
    return f"`fomo alias {name} {alias} {number} --move`"
