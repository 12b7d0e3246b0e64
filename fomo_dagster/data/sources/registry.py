"""The sources that a dataset can be declared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from fomo_dagster.data.sources.declared import DeclaredSource
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.data.sources.generated import GeneratedSource
from fomo_dagster.data.sources.huggingface import HuggingfaceSource
from fomo_dagster.data.sources.manifest import ManifestSource
from fomo_dagster.data.sources.release.source import FomoReleaseSource
from fomo_dagster.data.sources.torchvision.source import TorchvisionSource
from fomo_dagster.data.sources.webdataset.source import WebDatasetSource

SOURCES: tuple[type[DeclaredSource], ...] = (
    FolderSource,
    ManifestSource,
    GeneratedSource,
    TorchvisionSource,
    HuggingfaceSource,
    FomoReleaseSource,
    WebDatasetSource,
)

if TYPE_CHECKING:
    AnySource: TypeAlias = DeclaredSource
else:
    AnySource = Annotated[Union[SOURCES], Field(discriminator="type")]  # noqa: UP007
