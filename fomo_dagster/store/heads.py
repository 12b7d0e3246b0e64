"""Heads: for each asset, what it was last materialised as.

A head is a small JSON file per asset, replaced as a whole. It points to artifacts in the store and
holds the facts that downstream identities are made of, so a plan reads no artifact. Tables join on
it, so that only rows of an asset's current digest show. Its first key is a checksum of the others,
so a changed bit is noticed. A damaged head counts as missing, and the next run writes it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.files import signature, write_bytes
from fomo_dagster.store.sealed import sealed, unsealed

_ENDING = ".json"  # of a head's file

logger = logging.getLogger(__name__)
_said: set[tuple[Path, str]] = set()


@dataclass(frozen=True)
class Head:
    """What an asset is now.

    digest: of its recipes together; data_version: what downstream identities and Dagster see.
    recipes: artifact name → recipe as plain data; artifacts: name → [kind, digest].
    facts: what downstream recipes need to know of it. status: `computed` or `hit`, when it was last
    materialised, which was at `checked_at`.
    recorded_at, seconds, cost: of making its artifacts, whoever made them; a hit leaves them alone.
    tables: table → checksum of the file with its rows; None in a head from before there were any.
    makes_weights: whether its cost is one of its experiment's weights; None as `tables`.
    """

    asset: str
    kind: str
    experiment: str | None
    stage: int | None
    digest: str
    data_version: str
    code_version: str
    recipes: Mapping[str, Any]
    artifacts: Mapping[str, tuple[str, str]]
    facts: Mapping[str, Any]
    status: str
    recorded_at: str
    seconds: float | None
    cost: Mapping[str, Any] = field(default_factory=dict)
    checked_at: str | None = None
    tables: Mapping[str, str] | None = None
    makes_weights: bool | None = None


class Heads:
    """The heads below a folder, by asset key (parts joined by `/`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, asset: str) -> Head | None:
        """The head of an asset; None if there is none, or if it is damaged, which is reported."""
        path = self.path(asset)
        try:
            return decoded(asset, path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"the head of asset {asset} in {path} cannot be read ({error.strerror}): let this "
                "user read it, or remove it, and `fomo run` writes it again"
            ) from error
        except ValueError as error:
            _say_damaged(asset, path, str(error))
            return None

    def look(self, asset: str) -> Head | None:
        """As `read`, where it is only shown: None if it cannot be read, too, which is reported."""
        try:
            return self.read(asset)
        except StoreError as error:
            logger.warning("%s", error)
            return None

    def all(self) -> Iterator[tuple[Path, bytes, Head | None]]:
        """The file, its bytes and the head of every asset that has one. The head is None if it is
        damaged or cannot be read, which is reported."""
        yield from self.each(self.below(""))

    def each(self, assets: Iterable[str]) -> Iterator[tuple[Path, bytes, Head | None]]:
        """As `all`, of these assets."""
        for asset in assets:
            path, data = self.path(asset), b""
            try:
                data = path.read_bytes()
                yield path, data, decoded(asset, data)
            except FileNotFoundError:  # removed since it was listed
                continue
            except (OSError, ValueError) as error:
                said = error.strerror if isinstance(error, OSError) else str(error)
                _say_damaged(asset, path, str(said))
                yield path, data, None

    def signatures(self) -> dict[str, list[int]]:
        """The asset keys that have a head, in the order of `all` → the signature of its file, which
        is another one whenever a head was replaced."""
        found: dict[str, list[int]] = {}
        folders, start = [str(self.folder)], len(str(self.folder)) + 1
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if entry.name.endswith(_ENDING):
                        key = entry.path[start : -len(_ENDING)]
                        try:
                            found[key] = signature(entry.stat())
                        except FileNotFoundError:  # removed since it was listed
                            continue
                        except OSError:  # whoever reads it is told
                            found[key] = []
        return dict(sorted(found.items(), key=lambda one: f"{one[0]}{_ENDING}".split("/")))

    def write(self, head: Head) -> None:
        write_bytes(self.path(head.asset), sealed(asdict(head)))

    def remove(self, asset: str) -> None:
        self.path(asset).unlink(missing_ok=True)

    def below(self, prefix: str) -> Iterator[str]:
        """The asset keys that have a head below `prefix`, such as an experiment's name."""
        for path in sorted((self.folder / prefix).glob("**/*.json")):
            yield path.relative_to(self.folder).with_suffix("").as_posix()

    def path(self, asset: str) -> Path:
        """The file of an asset's head, whether it is there or not."""
        return self.folder / f"{asset}{_ENDING}"


def _say_damaged(asset: str, path: Path, reason: str) -> None:
    if (path, reason) in _said:  # a plan looks at it again and again
        return
    _said.add((path, reason))
    logger.warning(
        "the head of asset %s in %s is damaged (%s) and counts as missing: `fomo run` writes it "
        "again, from the artifacts in the store",
        asset, path, reason,
    )  # fmt: skip


def decoded(asset: str, data: bytes) -> Head:
    """The head of an asset from the bytes of its file; `ValueError` if they are damaged."""
    fields = unsealed(data)
    try:
        artifacts = {name: (kind, digest) for name, (kind, digest) in fields["artifacts"].items()}
        head = Head(**{**fields, "artifacts": artifacts})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if head.asset != asset:
        raise ValueError(f"it is that of {head.asset}")
    return head
