"""Heads: for each asset, what it was last materialised as.

A head is a small JSON file per asset, replaced whole. It points to artifacts in the store and holds
the facts that downstream identities are made of, so that a plan reads no artifact. Tables join on
it: only rows of an asset's current digest show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.files import write_bytes


@dataclass(frozen=True)
class Head:
    """What an asset is now.

    digest: of its recipes together; data_version: what downstream identities and Dagster see.
    recipes: artifact name → recipe as plain data; artifacts: name → [kind, digest].
    facts: what downstream recipes need to know of it. status: `computed` or `hit`.
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
    seconds: float
    cost: Mapping[str, Any] = field(default_factory=dict)


class Heads:
    """The heads below a folder, by asset key (parts joined by `/`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, asset: str) -> Head | None:
        try:
            data = json.loads(self._path(asset).read_text())
            data["artifacts"] = {
                n: (kind, digest) for n, (kind, digest) in data["artifacts"].items()
            }
            return Head(**data)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"the head of asset {asset} in {self._path(asset)} is damaged ({error}): delete "
                "that file and run again; artifacts in the store are found again"
            ) from error

    def write(self, head: Head) -> None:
        write_bytes(self._path(head.asset), json.dumps(asdict(head)).encode())

    def remove(self, asset: str) -> None:
        self._path(asset).unlink(missing_ok=True)

    def below(self, prefix: str) -> Iterator[str]:
        """The asset keys that have a head below `prefix`, such as an experiment's name."""
        for path in sorted((self.folder / prefix).glob("**/*.json")):
            yield path.relative_to(self.folder).with_suffix("").as_posix()

    def _path(self, asset: str) -> Path:
        return self.folder / f"{asset}.json"
