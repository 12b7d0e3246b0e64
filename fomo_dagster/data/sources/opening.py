"""From a dataset's declaration to the source that reads it."""

from __future__ import annotations

import os
from pathlib import Path

from fomo_dagster.data.declarations import Dataset, FolderSource, GeneratedSource
from fomo_dagster.data.sources.files import DigestCache
from fomo_dagster.data.sources.folder import FolderImages
from fomo_dagster.data.sources.generated import GeneratedImages
from fomo_dagster.data.sources.manifest import ManifestImages
from fomo_dagster.data.sources.source import Source
from fomo_dagster.store.digests import digest_of


def open_source(name: str, dataset: Dataset, base: Path, cache: Path) -> Source:
    """The source of the dataset `name`; nothing is read yet.

    Relative paths start from `base`. File digests are kept in the folder `cache`.
    """
    source = dataset.source
    if isinstance(source, GeneratedSource):
        return GeneratedImages(source.generator, source.parameters, source.seed)
    path = _resolved(base, source.path)
    one_concept = name if dataset.task == "retrieval" else None
    digests = DigestCache(cache / f"{name}-{digest_of(str(path))[:8]}.parquet")
    if isinstance(source, FolderSource):
        return FolderImages(
            path,
            captions=_resolved(base, source.captions) if source.captions else None,
            test_share=source.test_share,
            one_concept=one_concept,
            cache=digests,
        )
    return ManifestImages(
        path,
        _resolved(base, source.root) if source.root else path.parent,
        test_share=source.test_share,
        one_concept=one_concept,
        cache=digests,
    )


def _resolved(base: Path, path: Path) -> Path:
    """Absolute and without `..`, but with links as they are."""
    return Path(os.path.abspath(base / path.expanduser()))
