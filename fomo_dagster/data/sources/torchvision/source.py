"""Datasets in torchvision's own on-disk formats, already there or downloaded by it.

Images that are files are taken as they are; those in arrays become PNG files. torchvision itself
checks what it downloads, and the checksums of the pickles and matrices that it opens; both are
bounded by `guarded.py`. Which sets there are and what their classes are called stands in `sets.py`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from fomo_dagster.data.presence import Presence
from fomo_dagster.data.samples import SCAN, SPLITS
from fomo_dagster.data.sources.declared import SplitSource
from fomo_dagster.data.sources.files import DigestCache, read_reference, reference_of, resolved
from fomo_dagster.data.sources.pixels import as_png, pixel_digest
from fomo_dagster.data.sources.source import as_scan, in_one_form
from fomo_dagster.data.sources.splits import held_out
from fomo_dagster.data.sources.table_cache import keep, recall
from fomo_dagster.data.sources.torchvision.sets import SETS
from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import skipped_where_refused
from fomo_dagster.store.leases import lease
from fomo_dagster.texts import is_text

SCAN_VERSION = 1  # raised when a scan of the same files would be another one
FAILURES = (OSError, RuntimeError, pickle.UnpicklingError)  # how torchvision and requests fail
LISTED = {name: SCAN[name] for name in ("split", "key", "concept", "reference")}


class TorchvisionSource(SplitSource):
    """One of torchvision's datasets with classes, from files that are there. It downloads only if
    you declare `download: true`."""

    may_have_none: ClassVar[bool] = False
    places: ClassVar[frozenset[str]] = frozenset({"root", "download"})

    type: Literal["torchvision"] = "torchvision"
    dataset: Literal[
        "CIFAR10", "CIFAR100", "Caltech101", "Caltech256", "Country211", "DTD", "EuroSAT",
        "FGVCAircraft", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "Imagenette", "KMNIST",
        "MNIST", "OxfordIIITPet", "QMNIST", "RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN",
        "StanfordCars", "USPS",
    ] = Field(description="The name of torchvision's class.")  # fmt: skip
    root: Path = Field(description="The folder to give torchvision as `root`.")
    download: bool = Field(False, description="Let torchvision download what is missing.")

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> TorchvisionImages:
        """See `DeclaredSource.open`; all sets here have classes."""
        root = resolved(base, self.root)
        return TorchvisionImages(self, root, DigestCache.of_dataset(cache, name, root))

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        root, layout = resolved(base, self.root), SETS[self.dataset].layout
        place = str(root / layout)
        if any(root.glob(layout)):
            return Presence("present", place)
        if self.download:
            return Presence("on demand", place, "torchvision downloads it")
        return Presence("missing", place, "download: true brings it")


class TorchvisionImages:
    """One of torchvision's datasets below the folder `root`.

    cache: digests of files; beside them, a scan of arrays is kept.
    """

    def __init__(self, declared: TorchvisionSource, root: Path, cache: DigestCache) -> None:
        self.declared = declared
        self.root = root
        self.cache = cache
        self.set = SETS[declared.dataset]
        self._opened: tuple[str, Any] | None = None

    def __reduce__(self) -> tuple[type[TorchvisionImages], tuple[Any, ...]]:
        # Without the arrays: a worker process opens the set itself.
        return TorchvisionImages, (self.declared, self.root, self.cache)

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`. Keys are paths below the root, or the split and the number in it.

        Raises `InputError` if the files are not there (and could not be downloaded, where that
        is declared) or a split is none of the set's, and `DataError` where an image has no class.
        """
        splits = self._splits()
        if self.set.files is not None:
            self._fetch(splits)
            return self._scan_files(splits)
        path = self.cache.path.with_suffix(".scan.parquet")
        kept = recall(path, self._scan_key(splits), SCAN)
        if kept is not None:
            return kept
        self._fetch(splits)
        return keep(path, self._scan_key(splits), self._scan_arrays(splits))

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        if self.set.files is not None:
            return read_reference(reference)
        digest, name, number = reference.split(":")
        if self._opened is None or self._opened[0] != name:
            self._opened = (name, self._open(name))
        image, _ = self._opened[1][int(number)]
        if pixel_digest(image) != digest:
            raise DataError(
                f"image {number} of {name} of {self._title} changed after it was scanned: run "
                "again when nothing changes it"
            )
        return as_png(image)

    @property
    def _title(self) -> str:
        return f"torchvision's {self.declared.dataset} in {self.root}"

    def _splits(self) -> Mapping[str, tuple[str, ...]]:
        """Our splits, each with torchvision's that it is made of."""
        ours = {"train": self.set.train, "test": self.set.test}
        if self.declared.splits is None:
            return ours
        if self.set.argument is None:
            raise InputError(
                f"torchvision's {self.declared.dataset} has no splits to choose: leave `splits` "
                "out, and a share (`test_share`) is held out"
            )
        chosen: Mapping[Any, tuple[str, ...]] = self.declared.splits
        return {split: chosen.get(split, ()) for split in SPLITS}

    def _fetch(self, splits: Mapping[str, tuple[str, ...]]) -> None:
        """Let torchvision download what is not there, where that is declared."""
        if not self.declared.download:
            return
        # Where the home cannot be written, what is there already will do.
        with skipped_where_refused(), lease(self.cache.path.with_suffix(".download")):
            for name in (name for names in splits.values() for name in names):
                try:
                    self._construct(name, download=True)
                except FAILURES as error:
                    reason = " ".join(str(error).split())
                    raise InputError(
                        f"torchvision could not download {self.declared.dataset}: {reason}. Where "
                        "the network does not allow it, download it elsewhere and put its files "
                        f"at {self.root / self.set.layout}, as torchvision unpacks them"
                    ) from error

    def _scan_key(self, splits: Mapping[str, tuple[str, ...]]) -> str:
        """Digest of all that a scan of arrays is a function of."""
        files = sorted(path for path in self.root.glob(self.set.layout) if path.is_file())
        digests = self.cache.digests([str(path) for path in files], self._title)
        names = [path.relative_to(self.root).as_posix() for path in files]
        return digest_of(
            {
                "scan": SCAN_VERSION,
                "torchvision": version("torchvision"),
                "dataset": self.declared.dataset,
                "files": dict(zip(names, digests, strict=True)),
                "splits": splits,
                "test_share": self.declared.test_share,
            }
        )

    def _scan_files(self, splits: Mapping[str, tuple[str, ...]]) -> pl.DataFrame:
        found = self._with_splits(
            pl.DataFrame(list(self._listed_files(splits)), schema=LISTED, orient="row"), splits
        )
        paths = found["reference"].to_list()
        digests = self.cache.digests(paths, self._title)
        references = list(map(reference_of, paths, digests))
        return as_scan(
            found.with_columns(
                pl.Series("digest", digests, pl.String),
                pl.Series("reference", references, pl.String),
            )
        )

    def _listed_files(
        self, splits: Mapping[str, tuple[str, ...]]
    ) -> Iterator[tuple[str, str, str, str]]:
        """LISTED, the path as the reference."""
        assert self.set.files is not None
        for split, names in splits.items():
            for name in names:
                opened = self._open(name)
                classes = self.set.names(opened)
                for path, label in self.set.files(opened):
                    if not is_text(path):
                        raise DataError(f"the name of {path!r} is not UTF-8: rename the file")
                    key = Path(os.path.relpath(path, self.root)).as_posix()
                    yield split, key, self._concept(classes, label, name), path

    def _scan_arrays(self, splits: Mapping[str, tuple[str, ...]]) -> pl.DataFrame:
        rows: list[tuple[object, ...]] = []
        for split, names in splits.items():
            for name in names:
                opened = self._open(name)
                classes = self.set.names(opened)
                for number in range(len(opened)):
                    image, label = opened[number]
                    digest = pixel_digest(image)
                    rows.append(
                        (split, f"{name}/{number:06d}", self._concept(classes, label, name), [],
                         digest, f"{digest}:{name}:{number}")
                    )  # fmt: skip
        return as_scan(self._with_splits(pl.DataFrame(rows, schema=SCAN, orient="row"), splits))

    def _with_splits(
        self, rows: pl.DataFrame, splits: Mapping[str, tuple[str, ...]]
    ) -> pl.DataFrame:
        """`rows` in one form, with a share held out where nothing else is for testing."""
        if rows.is_empty():
            raise DataError(f"{self._title} has no images")
        if "captions" not in rows.columns:
            rows = rows.with_columns(captions=pl.lit([], pl.List(pl.String)))
        rows = in_one_form(rows)
        if self.set.test or self.declared.splits is not None:
            return rows
        return rows.with_columns(held_out(rows, self.declared.test_share))

    def _concept(self, classes: Sequence[str], label: int | None, name: str) -> str:
        if label is None or not 0 <= label < len(classes):
            raise DataError(
                f"{name} of {self._title} has an image without a class (label {label}): take "
                f"{name!r} out of `splits`"
            )
        return str(classes[label])

    def _open(self, name: str) -> Any:
        """torchvision's dataset over its split `name`, which must be there."""
        try:
            return self._construct(name, download=False)
        except FAILURES as error:
            raise InputError(
                f"{self._title} is not there, or not whole ({error}): put its files at "
                f"{self.root / self.set.layout}, as torchvision unpacks them, or declare "
                "`download: true`"
            ) from error

    def _construct(self, name: str, *, download: bool) -> Any:
        from fomo_dagster.data.sources.torchvision.guarded import datasets

        if self.set.argument == "train" and name not in SPLITS:
            raise InputError(
                f"torchvision's {self.declared.dataset} has no split {name!r}; "
                + nearest(name, SPLITS)
            )
        arguments = self.set.constructor_arguments(name)
        try:
            create = getattr(datasets, self.declared.dataset)
            return create(str(self.root), download=download, **arguments)
        except ValueError as error:
            raise InputError(f"torchvision's {self.declared.dataset}: {error}") from error
        except ModuleNotFoundError as error:
            raise InputError(
                f"torchvision reads {self.declared.dataset} with the package {error.name!r}: "
                f"pip install {error.name}"
            ) from error
