"""Who needs which artifacts of a home: what cleaning never takes.

`HOLDERS` is the register: each of its functions says what one sort of holder needs. What is not
named here is needed by processes that run (`pins`), by other homes (`sharing`, `users`), or by
nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import DIGEST_LENGTH
from fomo_dagster.store.heads import Heads
from fomo_dagster.store.places import Address

RECIPE = "recipe.json"
"""In the folder of a resume point: what its training is made from."""

GALLERY, GALLERY_INDEX = "gallery", "gallery_index"
"""The kinds of galleries' artifacts."""

_DIGEST = re.compile(rf"(?<![0-9a-f])[0-9a-f]{{{DIGEST_LENGTH}}}(?![0-9a-f])")


@dataclass(frozen=True)
class Root:
    """One that needs artifacts.

    holder: `asset`, `release` or `resume point`. name: its key, its name, or its digest.
    experiment: of an asset, if it is one of an experiment. addresses: what it needs. digests: what
    it needs too, of whatever kind. is_weights: whether it is an asset whose numbers are elsewhere.
    """

    holder: str
    name: str
    experiment: str | None = None
    addresses: frozenset[Address] = frozenset()
    digests: frozenset[str] = frozenset()
    is_weights: bool = False

    def needs(self, address: Address) -> bool:
        """Whether it needs that artifact."""
        return address in self.addresses or address[1] in self.digests


def digests_in(data: object) -> set[str]:
    """All digests in plain data."""
    return set(_DIGEST.findall(json.dumps(data)))


def _of_heads(home: Path) -> Iterator[Root]:
    for path, _, head in Heads(home / "heads").all():
        if head is None:
            raise StoreError(
                f"the head {path} is damaged, so nobody knows which artifacts it needs: `fomo run` "
                "of its experiment writes it again; or remove it"
            )
        yield Root(
            "asset", head.asset, head.experiment, frozenset(head.artifacts.values()),
            is_weights=bool(head.makes_weights) and head.experiment is not None,
        )  # fmt: skip


def _of_galleries(home: Path) -> Iterator[Root]:
    """What each gallery was before another release embedded it: who goes back has it at once. Of
    one that is being refreshed, what has the rows that are not embedded anew yet."""
    for _, _, head in Heads(home / "heads").all():
        if head is not None and head.kind in (GALLERY, GALLERY_INDEX) and head.facts["earlier"]:
            _, latest = head.facts["earlier"][-1]
            digests = {latest, *head.facts.get("rest", ())}
            yield Root("asset", head.asset, None, frozenset((head.kind, one) for one in digests))


def _of_releases(home: Path) -> Iterator[Root]:
    """The weights and evaluations of every release, as any may be gone back to, and which samples
    they learnt; the files of those that a name stands for. Of a record that says none of it,
    whatever digest it names."""
    folder = home / "releases"
    names: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).parts[0].removesuffix(".json")
        text = path.read_text(errors="replace")
        try:
            record = json.loads(text)
            if record.get("kind") in ("release", "rollback", "alias", "files"):
                names.setdefault(name, []).append(record)
            if record.get("kind") in ("refusal", "rollback", "alias", "files"):
                continue
            kind, digest = record["candidate"]["weights"]
            evaluations = frozenset(record["candidate"]["evaluations"].values())
            addresses = {(kind, digest), *_manifests(record["candidate"]["lineage"])}
            yield Root("release", name, None, frozenset(addresses), evaluations)
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Root("release", name, digests=frozenset(_DIGEST.findall(text)))
    for name, records in names.items():
        if files := frozenset(_named_files(records)):
            yield Root("release", name, None, files)


def _manifests(lineage: Mapping[str, str]) -> Iterator[Address]:
    """What says which samples weights learnt: the chunks, and the near duplicates that were left
    out of them."""
    for asset, version in lineage.items():
        kind = asset.rpartition("/")[2].partition(" ")[0].rpartition("_")[0]
        if kind in ("chunk", "near_duplicates"):
            yield kind, version


def _named_files(records: Sequence[Mapping[str, Any]]) -> Iterator[Address]:
    """The files of what is live, of what was live before, and of what has an alias. records: of a
    release name, in order."""
    numbers: dict[object, object] = {}
    live = None
    for record in records:
        if record.get("kind") == "alias":
            numbers[record.get("alias")] = record.get("release")
        if record.get("live") != live:
            numbers["previous"], live = live, record.get("live")
    numbers["live"] = live
    last = {one.get("release"): one.get("files") for one in records if one.get("kind") == "files"}
    for number in set(numbers.values()):
        match last.get(number):
            case [str(kind), str(digest)]:
                yield kind, digest


def _of_resume_points(home: Path) -> Iterator[Root]:
    for folder in sorted((home / "resume").glob("*")):
        if not folder.is_dir():
            continue
        try:
            recipe: Mapping[str, Any] = json.loads((folder / RECIPE).read_bytes())
            found = frozenset(digests_in(recipe["inputs"]))
        except (OSError, ValueError, KeyError, TypeError):  # of an older version
            found = frozenset()
        yield Root("resume point", folder.name, digests=found)


HOLDERS: tuple[Callable[[Path], Iterator[Root]], ...] = (
    _of_heads,
    _of_galleries,
    _of_releases,
    _of_resume_points,
)


def roots(home: Path) -> Iterator[Root]:
    """All that need artifacts of the store of a home. Raises `StoreError` where that cannot be
    known, and then nothing may be cleaned."""
    for holder in HOLDERS:
        yield from holder(home)
