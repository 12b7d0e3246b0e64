"""Rows that are not copied into tables: a view reads them where they lie in the store.

They are by far the largest, so there is one copy of each, which all assets share that made the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fomo_dagster.store.heads import Head
from fomo_dagster.store.manifests import MANIFEST, DamagedError, parse
from fomo_dagster.store.roots import GALLERY
from fomo_dagster.store.verified import Verified
from fomo_dagster.tables.view_columns import GALLERY_COLUMNS, PREDICTION_COLUMNS


@dataclass(frozen=True)
class StoreFiles:
    """The files of a view. kind: of their artifacts; file: their name there; columns: theirs."""

    view: str
    kind: str
    file: str
    columns: Mapping[str, pl.DataType] = field(hash=False)

    def of(self, home: Path, head: Head) -> Iterator[tuple[Path, str | None]]:
        """Those of an asset, each with what is wrong with it or None. Artifacts from before there
        were such files have none."""
        verified = Verified(home / "store" / ".verified")
        for kind, digest in head.artifacts.values():
            if kind != self.kind:
                continue
            folder = home / "store" / kind / digest
            try:
                files = parse((folder / MANIFEST).read_bytes(), kind, digest)["files"]
                if self.file in files:
                    yield folder / self.file, verified.problem(kind, digest, folder, files)
            except FileNotFoundError:
                yield folder / self.file, "it is missing"
            except DamagedError as damage:
                yield folder / self.file, str(damage)
            except OSError as error:
                yield folder / self.file, f"it cannot be read: {error.strerror}"


OF_PREDICTIONS = StoreFiles("predictions", "evaluation", "predictions.parquet", PREDICTION_COLUMNS)
OF_GALLERIES = StoreFiles("galleries", GALLERY, "embeddings.parquet", GALLERY_COLUMNS)
IN_STORE = (OF_PREDICTIONS, OF_GALLERIES)
"""All of them."""
