"""Datasets that Hugging Face's `datasets` reads: Arrow or Parquet files, or by name from the hub.

Images are taken as they are encoded, and never decoded. Local Parquet files are converted to Arrow
files in the cache, once, so that any image can be read by itself. Streaming from the hub is not
covered: `datasets` downloads a dataset by name as a whole.
"""

from __future__ import annotations

import glob
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from fomo_dagster.data.presence import Presence
from fomo_dagster.data.samples import SCAN, SPLITS
from fomo_dagster.data.sources.declared import ALLOW_OUTSIDE, SplitSource
from fomo_dagster.data.sources.files import DigestCache, lies_in, resolved, shortlist
from fomo_dagster.data.sources.source import Inspection, as_scan, in_one_form
from fomo_dagster.data.sources.splits import Assignment, assign, held_out
from fomo_dagster.data.sources.table_cache import keep, recall
from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.paths import problem_of
from fomo_dagster.store.digests import digest_of, digest_of_bytes
from fomo_dagster.texts import is_text

SCAN_VERSION = 2  # raised when a scan of the same files would be another one
BATCH = 256  # rows looked at at once
SAVED = ("dataset_info.json", "dataset_dict.json")  # one of them stands where `save_to_disk` wrote
NO_IMAGES = (TypeError, ValueError, NotImplementedError)  # how the library says so
FORMATS = {".parquet": "parquet", ".arrow": "arrow"}


class HuggingfaceSource(SplitSource):
    """A dataset that the library `datasets` reads: a `save_to_disk` folder, Parquet or Arrow files,
    or a `name` on the hub."""

    may_have_none: ClassVar[bool] = False
    places: ClassVar[frozenset[str]] = frozenset({"path"})

    type: Literal["huggingface"] = "huggingface"
    path: Path | None = Field(
        None,
        description="A `save_to_disk` folder, a folder of Parquet or Arrow files, or one such "
        "file.",
    )
    name: str | None = Field(
        None, description="The dataset's name on the hub, if there is no path."
    )
    config: str | None = Field(None, description="The hub dataset's configuration.")
    revision: str | None = Field(None, description="The hub dataset's revision: a commit or a tag.")
    image: str = Field("image", description="The column of images.")
    label: str | None = Field("label", description="The column of classes; null: there is none.")
    caption: str | None = Field(None, description="The column of captions: a text, or a list.")
    allow_outside: bool = ALLOW_OUTSIDE

    @model_validator(mode="after")
    def _has_one_origin(self) -> HuggingfaceSource:
        if (self.path is None) == (self.name is None):
            raise ValueError("exactly one of path and name must be given")
        if self.path is not None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision belong to a dataset by name, not to a path")
        return self

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> HuggingfaceImages:
        """See `DeclaredSource.open`."""
        path = None if self.path is None else resolved(base, self.path)
        digests = DigestCache.of_dataset(cache, name, path or self.name)
        return HuggingfaceImages(self, path, one_concept=one_concept, cache=digests)

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        if self.path is None:
            return Presence("on demand", str(self.name), "from the hub")
        path = resolved(base, self.path)
        if (problem := problem_of(path, "file or folder")) is not None:
            return Presence("missing", str(path), problem)
        return Presence("present", str(path))


class HuggingfaceImages:
    """The images of one dataset; `path` is the declared one made absolute, or None for a name.

    one_concept: the concept of all images where no column of labels is declared.
    """

    def __init__(
        self,
        declared: HuggingfaceSource,
        path: Path | None,
        *,
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.declared = declared
        self.path = path
        self.one_concept = one_concept
        self.cache = cache
        self._loaded: Mapping[str, Any] | None = None
        self._columns: dict[str, None] = {}  # of all splits

    def __getstate__(self) -> dict[str, Any]:
        # Without the opened files: a worker process maps them itself.
        return {**vars(self), "_loaded": None}

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def inspect(self) -> Inspection:
        """The samples; a key is the library's split and the row's number in it.

        Raises `InputError` if there is no such dataset, split or column, or the library is not
        installed, and `DataError` for a row without image or class.
        """
        self._loaded = None
        assigned = self._splits()
        notes = (*assigned.notes, *self._unread())
        splits = {split: assigned.of.get(split, ()) for split in SPLITS}
        path = self.cache.path.with_suffix(".scan.parquet")
        key = self._scan_key(splits)
        kept = recall(path, key, SCAN)
        if kept is not None:
            return Inspection(kept, warnings=notes)
        outside: list[str] = []
        rows = pl.DataFrame(list(self._rows(splits, outside)), schema=SCAN, orient="row")
        if rows.is_empty():
            raise DataError(f"{self._title} has no rows: correct its path or name, or its `splits`")
        rows = in_one_form(rows)
        if not splits["test"] and self.declared.splits is None:
            rows = rows.with_columns(held_out(rows, self.declared.test_share))
        if outside and self.path is not None:  # image files that the key knows nothing of
            return Inspection(as_scan(rows), warnings=notes)
        return Inspection(keep(path, key, as_scan(rows)), warnings=notes)

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        digest, name, number = reference.split(":")
        image = self._datasets[name][int(number)][self.declared.image]
        data = self._bytes(image, f"row {number} of {name!r} of {self._title}")
        if digest_of_bytes(data) != digest:
            raise DataError(
                f"row {number} of {name!r} of {self._title} changed after it was scanned: run "
                "again when nothing changes it"
            )
        return data

    @property
    def _title(self) -> str:
        return f"the dataset {self.path or self.declared.name}"

    @property
    def _datasets(self) -> Mapping[str, Any]:
        """Split → the library's dataset, its images left encoded."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> dict[str, Any]:
        datasets = _library()
        if datasets is None:
            raise InputError(
                f"{self._title} is read with the package `datasets`, which is not installed: "
                "pip install 'fomo-dagster[huggingface]'"
            )
        try:
            loaded = self._opened(datasets)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            hint = "" if self.path else "; where the network does not allow it, give its `path`"
            raise InputError(f"{self._title} cannot be loaded: {error}{hint}") from error
        if isinstance(loaded, datasets.Dataset):
            loaded = {"train": loaded}
        self._columns = dict.fromkeys(c for part in loaded.values() for c in part.column_names)
        return {name: self._checked(part, datasets) for name, part in loaded.items()}

    def _unread(self) -> tuple[str, ...]:
        read = (self.declared.image, self.declared.label, self.declared.caption)
        others = [column for column in self._columns if column not in read]
        said = f"{self._title} has columns that are not read: {shortlist(others)}"
        return (said,) if others else ()

    def _opened(self, datasets: Any) -> Any:
        """A dataset of the library's, or several by split."""
        if self.path is None:
            return datasets.load_dataset(
                self.declared.name, self.declared.config, revision=self.declared.revision
            )
        if (problem := problem_of(self.path, "file or folder")) is not None:
            raise InputError(problem)
        datasets.disable_progress_bars()
        if any((self.path / name).is_file() for name in SAVED):
            return datasets.load_from_disk(str(self.path))
        converted = str(self.cache.path.with_suffix(".arrow"))
        escaped = glob.escape(str(self.path))  # the library takes a whole path for a pattern
        if self.path.is_dir():
            what, files = str(self.path), None
            if escaped != str(self.path):
                patterns = datasets.data_files.get_data_patterns(escaped)
                files = {s: [f"{escaped}/{one}" for one in of] for s, of in patterns.items()}
        elif self.path.suffix in FORMATS:
            what, files = FORMATS[self.path.suffix], {"train": [escaped]}
        else:
            raise InputError(f"{self.path} is no dataset: expected a file {', '.join(FORMATS)}")
        builder = datasets.load_dataset_builder(what, data_files=files, cache_dir=converted)
        self._check_classes(
            [one for several in builder.config.data_files.values() for one in several]
        )
        builder.download_and_prepare()
        return builder.as_dataset()

    def _check_classes(self, files: Sequence[str]) -> None:
        """Refuse files that number classes differently: the library takes the first one's names."""
        label = self.declared.label
        named = {file: names for file in files if (names := _class_names(file, label)) is not None}
        first = next(iter(named), "")
        for file, names in named.items():
            pairs = enumerate(zip_longest(named[first], names))
            differing = [(number, one, other) for number, (one, other) in pairs if one != other]
            if differing:
                number, one, other = differing[0]
                raise DataError(
                    f"{self._title} has files that number the classes in {label!r} differently: "
                    f"{number} is {one!r} in {first} and {other!r} in {file}; write all with the "
                    "same ClassLabel, or the classes as text"
                )

    def _checked(self, part: Any, datasets: Any) -> Any:
        """The columns used, images left encoded; raises `InputError` where one is missing."""
        declared = self.declared
        wanted = {"image": declared.image, "label": declared.label, "caption": declared.caption}
        for role, column in wanted.items():
            if column is not None and column not in part.column_names:
                raise InputError(
                    f"{self._title} has no column {column!r} (declared as its {role}); "
                    + nearest(column, part.column_names)
                )
        if declared.label is None and self.one_concept is None:
            raise InputError(
                f"{self._title} has no label: name its column, or declare `task: retrieval`"
            )
        used = part.select_columns([column for column in wanted.values() if column is not None])
        try:
            return used.cast_column(declared.image, datasets.Image(decode=False))
        except NO_IMAGES as error:
            raise DataError(
                f"the column {declared.image!r} of {self._title} holds no images ({error}): name "
                "another column as `image`"
            ) from error

    def _splits(self) -> Assignment:
        """What each of the library's splits is for."""
        there = list(self._datasets)
        splits = assign(there, self.declared.splits, self._title)
        if not splits.of:
            raise InputError(
                f"{self._title} has the splits {shortlist(there)}: say with `splits` which are for "
                "training and which for testing"
            )
        return splits

    def _scan_key(self, splits: Mapping[str, tuple[str, ...]]) -> str:
        """Digest of all that a scan is a function of, the content of the library's files first."""
        parts = {}
        for name in (name for names in splits.values() for name in names):
            files = [entry["filename"] for entry in self._datasets[name].cache_files]
            parts[name] = self.cache.digests(files, self._title)
        columns = self.declared.model_dump(include={"image", "label", "caption", "test_share"})
        return digest_of(
            {"scan": SCAN_VERSION, "files": parts, "splits": splits, "concept": self.one_concept,
             **columns}
        )  # fmt: skip

    def _rows(
        self, splits: Mapping[str, tuple[str, ...]], outside: list[str]
    ) -> Iterator[tuple[Any, ...]]:
        """SCAN; the images that lie in files of their own are added to `outside`."""
        declared = self.declared
        for split, name in ((split, name) for split, names in splits.items() for name in names):
            part = self._datasets[name]
            classes = getattr(part.features.get(declared.label), "names", None)
            for number, row in enumerate(_one_by_one(part, f"{name!r} of {self._title}")):
                where = f"row {number} of {name!r} of {self._title}"
                image, label = row[declared.image], row.get(declared.label or "")
                digest = digest_of_bytes(self._bytes(image, where))
                if image["bytes"] is None:
                    outside.append(image["path"])
                concept = self._concept(label, classes, where) if declared.label else None
                yield (
                    split,
                    f"{name}/{number:07d}",
                    concept or self.one_concept,
                    _captions(row.get(declared.caption or ""), where),
                    digest,
                    f"{digest}:{name}:{number}",
                )

    def _bytes(self, image: Mapping[str, Any] | None, where: str) -> bytes:
        """A row's image as encoded in it, or as the file that it names."""
        data: bytes | None = None if image is None else image["bytes"]
        if data is not None:
            return data
        if image is None or image["path"] is None:
            raise DataError(f"{where} has no image: leave the row out, or name another column")
        if not self._may_read(image["path"]):
            raise DataError(
                f"the image of {where} is {image['path']}, outside of its folder: declare "
                "`allow_outside: true` where you trust the dataset"
            )
        try:
            return Path(image["path"]).read_bytes()
        except OSError as error:
            raise DataError(
                f"the image {image['path']} of {where} cannot be read: {error.strerror}"
            ) from error

    def _may_read(self, image: str) -> bool:
        if self.path is None or self.declared.allow_outside:  # of a name, the library fetched them
            return True
        folder = self.path if self.path.is_dir() else self.path.parent
        return lies_in(os.path.realpath(folder), os.path.realpath(image))

    def _concept(self, label: Any, classes: list[str] | None, where: str) -> str:
        if classes is not None and isinstance(label, int) and 0 <= label < len(classes):
            if not is_text(classes[label]):
                raise DataError(
                    f"{where} is of the class {classes[label]!r}, whose name has half a character "
                    "(a lone surrogate): rename it in the dataset's features"
                )
            return classes[label]
        if classes is None and isinstance(label, str) and label.strip():
            return label
        if classes is None and isinstance(label, int) and not isinstance(label, bool):
            return str(label)
        raise DataError(
            f"{where} has no class in {self.declared.label!r} ({label!r}): leave its split out, or "
            "name another column"
        )


def _library() -> Any:
    """Hugging Face's `datasets`; None if it is not installed.

    Started in a project's folder, Python would then take its folder `datasets/` for the library.
    """
    try:
        library = importlib.import_module("datasets")
    except ModuleNotFoundError:
        return None
    return library if hasattr(library, "load_dataset") else None


def _class_names(file: str, label: str | None) -> list[str] | None:
    """The classes that a Parquet or Arrow file itself names for its column of labels, in order."""
    import pyarrow
    from pyarrow.parquet import read_schema

    if file.endswith(".parquet"):
        schema = read_schema(file)
    elif file.endswith(".arrow"):
        try:
            schema = pyarrow.ipc.open_stream(file).schema
        except pyarrow.ArrowInvalid:
            schema = pyarrow.ipc.open_file(file).schema
    else:
        return None
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(label)
    return feature.get("names") if isinstance(feature, dict) else None


def _one_by_one(part: Any, where: str) -> Iterator[dict[str, Any]]:
    """The rows of a dataset of the library's, read a batch at a time."""
    batches = part.iter(BATCH)
    for first in range(0, len(part), BATCH):
        try:
            batch = next(batches)
        except NO_IMAGES as error:  # or bytes that are no text, and what else Arrow finds damaged
            raise DataError(f"rows from {first} on of {where} cannot be read: {error}") from error
        for i in range(len(next(iter(batch.values())))):
            yield {column: values[i] for column, values in batch.items()}


def _captions(value: Any, where: str) -> list[str]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"the caption of {where} must be text or a list of texts, not {value!r}: name another "
            "column as `caption`"
        )
    return [text for text in texts if text.strip()]
