"""From a dataset's declaration to the source that reads it."""

from __future__ import annotations

import os
from pathlib import Path

from fomo_dagster.data.benchmark.registry import find
from fomo_dagster.data.benchmark.release import Release
from fomo_dagster.data.declarations import (
    Dataset,
    FolderSource,
    FomoReleaseSource,
    GeneratedSource,
    HuggingfaceSource,
    TorchvisionSource,
    WebDatasetSource,
)
from fomo_dagster.data.sources.files import DigestCache, OnDisk
from fomo_dagster.data.sources.folder.images import FolderImages
from fomo_dagster.data.sources.generated import GeneratedImages
from fomo_dagster.data.sources.huggingface import HuggingfaceImages
from fomo_dagster.data.sources.manifest import ManifestImages
from fomo_dagster.data.sources.release import ReleaseImages
from fomo_dagster.data.sources.source import Source
from fomo_dagster.data.sources.torchvision.source import TorchvisionImages
from fomo_dagster.errors import InputError
from fomo_dagster.store.digests import digest_of


def open_source(name: str, dataset: Dataset, base: Path, cache: Path) -> Source:
    """The source of the dataset `name`; nothing is read yet.

    Relative paths start from `base`. File digests are kept in the folder `cache`.
    """
    source = dataset.source
    if isinstance(source, WebDatasetSource):
        raise InputError(f"the tars of dataset {name!r} are read where they lie, never copied")
    if isinstance(source, GeneratedSource):
        return GeneratedImages(source.generator, source.parameters, source.seed)
    if isinstance(source, FomoReleaseSource):
        return ReleaseImages(
            name,
            find(source.dataset or name),
            locate_release(source, base),
            resized=source.resized,
            allow_incomplete=source.allow_incomplete,
            cache=cache,
        )
    one_concept = name if dataset.task == "retrieval" else None
    if isinstance(source, HuggingfaceSource):
        path = None if source.path is None else resolved(base, source.path)
        return HuggingfaceImages(
            source, path, one_concept=one_concept, cache=_digests(cache, name, path or source.name)
        )
    if isinstance(source, TorchvisionSource):
        root = resolved(base, source.root)
        return TorchvisionImages(source, root, _digests(cache, name, root))
    path = resolved(base, source.path)
    digests = _digests(cache, name, path)
    if isinstance(source, FolderSource):
        return FolderImages(
            path,
            captions=resolved(base, source.captions) if source.captions else None,
            form=source,
            splits=source.splits,
            test_share=source.test_share,
            one_concept=one_concept,
            cache=digests,
        )
    return ManifestImages(
        path,
        resolved(base, source.root) if source.root else path.parent,
        form=source,
        allow_outside=source.allow_outside,
        splits=source.splits,
        test_share=source.test_share,
        one_concept=one_concept,
        cache=digests,
    )


def locate_release(source: FomoReleaseSource, base: Path) -> Release:
    """The copy of the release that a dataset is read from; see `Release.locate`."""
    return Release.locate(
        resolved(base, source.release) if source.release else None,
        resolved(base, source.images) if source.images else None,
    )


def _digests(cache: Path, name: str, origin: object) -> DigestCache:
    """The digests of a dataset's files; another origin has others."""
    return DigestCache(cache / f"{name}-{digest_of(str(origin))[:8]}.parquet")


def resolved(base: Path, path: Path) -> Path:
    """Absolute, without `..` and as the disk composes its letters, but with links as they are."""
    return Path(OnDisk().path(os.path.abspath(base / path.expanduser())))
