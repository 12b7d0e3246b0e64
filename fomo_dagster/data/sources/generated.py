"""Images that a generator renders (see `data/suite`), as PNG files in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from fomo_dagster.data.presence import Presence
from fomo_dagster.data.samples import SCAN, SPLITS
from fomo_dagster.data.sources.declared import DeclaredSource
from fomo_dagster.data.sources.pixels import as_png
from fomo_dagster.data.sources.source import as_scan
from fomo_dagster.data.suite.generator import Generator
from fomo_dagster.data.suite.registry import create_generator
from fomo_dagster.errors import DataError, StoreError
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import replacing, skipped_where_refused

Create = Callable[[str, Mapping[str, Any], int], Generator]
_KEPT_AS = 1  # raised when digests, references or the order of a scan change
_scanned: dict[tuple[str, Create], pl.DataFrame] = {}
"""What was scanned in this process, by its recipe: a command asks several times."""


class GeneratedSource(DeclaredSource):
    """One of the shipped sets: rendered, or cut from images that ship inside packages. Nothing is
    downloaded."""

    type: Literal["generated"] = "generated"
    generator: str = Field(description="The generator's name.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="The generator's parameters."
    )
    seed: int = Field(0, description="The generator's seed.")

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> GeneratedImages:
        """See `DeclaredSource.open`; a generator names its concepts itself."""
        return GeneratedImages(
            self.generator, self.parameters, self.seed, cache=cache / "generated"
        )

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        return Presence("on demand", note="rendered")


class GeneratedImages:
    """The samples of a generator. What tells them apart is how they are made, so that scanning
    renders nothing: a sample's digest is that of its recipe. cache: a folder that keeps scans, for
    a generator whose samples its version, parameters and seed decide alone."""

    def __init__(
        self,
        generator: str,
        parameters: Mapping[str, Any],
        seed: int,
        create: Create = create_generator,
        cache: Path | None = None,
    ) -> None:
        self.name = generator
        self.parameters = dict(parameters)
        self.seed = seed
        self.create = create
        self.cache = cache

    def __reduce__(self) -> tuple[type[GeneratedImages], tuple[Any, ...]]:
        # Without the generator, which may hold whole pictures: a worker process makes its own.
        return GeneratedImages, (self.name, self.parameters, self.seed, self.create, self.cache)

    @cached_property
    def generator(self) -> Generator:
        """Made when first used. Raises `InputError` for a name or parameters it cannot take."""
        return self.create(self.name, self.parameters, self.seed)

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`."""
        recipe = self._recipe()
        key = digest_of(recipe), self.create
        if key not in _scanned:
            _scanned[key] = self._kept_or_scanned(recipe)
        return _scanned[key]

    def _kept_or_scanned(self, recipe: Mapping[str, Any]) -> pl.DataFrame:
        if self.cache is None:
            return self._scan(recipe)
        path = self.cache / f"{digest_of({'scan': _KEPT_AS, **recipe})}.parquet"
        try:
            kept = read_parquet(path)
        except (OSError, StoreError):  # not there, or damaged
            kept = pl.DataFrame()
        if kept.schema == SCAN:
            return kept
        found = self._scan(recipe)
        with skipped_where_refused(), replacing(path) as temporary:
            found.write_parquet(temporary)
        return found

    def _scan(self, recipe: Mapping[str, Any]) -> pl.DataFrame:
        rows = pl.DataFrame(list(self._rows(recipe)), schema=SCAN, orient="row")
        same = rows.filter(rows.select("split", "key").is_duplicated())
        if same.height:
            raise DataError(
                f"generator {self.name!r} gives the key {same['key'][0]!r} to two samples of "
                f"split {same['split'][0]!r}"
            )
        return as_scan(rows)

    def read(self, reference: str) -> bytes:
        """See `Source.read`: the rendered image as PNG, lossless."""
        split, _, key = reference.partition("/")
        return as_png(self.generator.render(split, key))

    def _recipe(self) -> dict[str, Any]:
        return {
            "generator": self.name,
            "version": self.generator.version,
            "parameters": self.parameters,
            "seed": self.seed,
        }

    def _rows(self, recipe: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
        for split in SPLITS:
            for sample in self.generator.samples(split):
                digest = digest_of({**recipe, "split": split, "key": sample.key})
                reference = f"{split}/{sample.key}"
                yield split, sample.key, sample.concept, list(sample.captions), digest, reference
