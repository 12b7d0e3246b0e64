"""Whether a dataset's images are on this machine, from a look at few files.

Nothing is read through: that all images are there, and the right ones, is what a scan of the source
finds out (see `data/sources`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fomo_dagster.data.benchmark.registry import BenchmarkDataset, find
from fomo_dagster.data.benchmark.release import RELEASE_VARIABLE, Release
from fomo_dagster.data.declarations import (
    Dataset,
    FolderSource,
    FomoReleaseSource,
    GeneratedSource,
    HuggingfaceSource,
    ManifestSource,
    TorchvisionSource,
    WebDatasetSource,
)
from fomo_dagster.data.sources.opening import locate_release, resolved
from fomo_dagster.data.sources.torchvision.sets import SETS
from fomo_dagster.data.sources.webdataset.listing import is_local, list_shards
from fomo_dagster.errors import DataError, InputError

State = Literal["present", "on demand", "incomplete", "missing"]

NO_RELEASE = "no release"  # the note where there is no copy of the benchmark's


@dataclass(frozen=True)
class Presence:
    """place: where the images are, or would be. note: what is missing, in a few words.

    On demand is what is rendered, or downloaded by its source when it is first used.
    """

    state: State
    place: str = ""
    note: str = ""


def presence(name: str, dataset: Dataset, base: Path) -> Presence:
    """Of the dataset `name`; relative paths start from `base`."""
    source = dataset.source
    if isinstance(source, GeneratedSource):
        return Presence("on demand", note="rendered")
    if isinstance(source, WebDatasetSource):
        return _of_tars(source, base)
    if isinstance(source, FomoReleaseSource):
        try:
            release = locate_release(source, base)
        except InputError:
            return Presence("missing", f"${RELEASE_VARIABLE}", NO_RELEASE)
        return _in_release(find(source.dataset or name), release)
    if isinstance(source, TorchvisionSource):
        return _of_torchvision(source, resolved(base, source.root))
    if isinstance(source, HuggingfaceSource) and source.path is None:
        return Presence("on demand", str(source.name), "from the hub")
    assert isinstance(source, FolderSource | ManifestSource | HuggingfaceSource)
    assert source.path is not None
    path = resolved(base, source.path)
    if not (path.is_file() if isinstance(source, ManifestSource) else path.exists()):
        return Presence("missing", str(path), f"no {path.name}")
    captions = source.captions if isinstance(source, FolderSource) else None
    if captions is not None and not resolved(base, captions).is_file():
        return Presence("incomplete", str(path), f"no {captions.name}")
    return Presence("present", str(path))


def _of_tars(source: WebDatasetSource, base: Path) -> Presence:
    place = ", ".join(source.patterns)
    if not all(map(is_local, source.patterns)):
        return Presence("on demand", place, "streamed")
    try:
        list_shards(source.patterns, base)
    except DataError:
        return Presence("missing", place, "no such tars")
    return Presence("present", place)


def _of_torchvision(source: TorchvisionSource, root: Path) -> Presence:
    place = str(root / SETS[source.dataset].layout)
    if any(root.glob(SETS[source.dataset].layout)):
        return Presence("present", place)
    if source.download:
        return Presence("on demand", place, "torchvision downloads it")
    return Presence("missing", place, "download: true brings it")


def _in_release(dataset: BenchmarkDataset, release: Release) -> Presence:
    archive, folder = release.archive(dataset), release.folder(dataset)
    place = folder if folder.is_dir() and not archive.is_file() else archive
    if not place.exists():
        part = archive.with_name(f"{archive.name}.part")
        if part.exists():
            size = part.stat().st_size / 1e6
            return Presence("incomplete", str(archive), f"{size:,.0f} MB downloaded")
        return Presence("missing", str(archive), "no archive")
    lacking = [
        path.name
        for split, expected in (("train", dataset.train), ("test", dataset.test))
        if expected and not (path := release.info_file(dataset, split)).is_file()
    ]
    try:
        release.class_names(dataset)
    except DataError:
        lacking.append("class list")
    note = "no " + ", ".join(lacking) if lacking else ""
    return Presence("incomplete" if lacking else "present", str(place), note)


def differences(expected: BenchmarkDataset, counts: Mapping[str, Any]) -> str:
    """How the samples of a dataset's shards differ in number from the benchmark's, or nothing."""
    return ", ".join(
        f"{counts[split]:,} of {number:,} {split}"
        for split, number in (("train", expected.train), ("test", expected.test))
        if counts[split] != number
    )
