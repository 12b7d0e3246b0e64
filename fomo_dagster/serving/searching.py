"""The galleries of a server: each as the release embedded it that a request is answered by."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import Any

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.declaration import FOLDER
from fomo_dagster.galleries.finding import (
    FoundGallery,
    embedders_of,
    gallery_before,
    gallery_of,
    head_of,
)
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.sample_images import SampleImages
from fomo_dagster.home import project_folder
from fomo_dagster.releases.records import History
from fomo_dagster.serving.limits import RequestError
from fomo_dagster.serving.loading import Loader
from fomo_dagster.store.heads import Head

MOST_OPEN = 8  # which keep their index mapped
SIDE, QUALITY = 224, 85  # pixels of a thumbnail's longer side; of its JPEG


class Galleries:
    """Those that releases of a name embed. Threads may share it."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._home, self._name = loader, loader.home, loader.name
        self._open: OrderedDict[tuple[tuple[str, str], ...], GallerySearch] = OrderedDict()
        self._lock = Lock()
        self._images = SampleImages(lambda: RunContext(build_project(project_folder()), self._home))
        self._images_lock = Lock()

    def listed(self) -> list[dict[str, Any]]:
        """What there is to know of those that this name's releases embed, sorted by name."""
        heads = (self._home.heads.read(key) for key in sorted(self._home.heads.below(FOLDER)))
        return [
            {
                "gallery": head.asset.partition("/")[2], "release": head.facts.get("number"),
                "of": head.facts["of"], "rows": head.facts["rows"],
            }
            for head in heads
            if head is not None and head.kind == "gallery" and head.facts["release"] == self._name
        ]  # fmt: skip

    def thumbnail(
        self, gallery: str, split: str, key: str, history: History, in_memory: Collection[int]
    ) -> bytes:
        """The image of one of a gallery's rows, small, as JPEG. Raises `RequestError` where it is
        not there."""
        search = self.open(gallery, None, history, in_memory)
        shown = search.gallery.artifact.manifest["recipe"]["parameters"]["split"]
        image = None
        if shown in ("all", split):
            with self._images_lock:
                image = self._images(search.gallery.facts["dataset"], key, split)
        if image is None:
            raise RequestError(404, f"{gallery!r} has no image {key!r} of the split {split!r} here")
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def open(
        self, gallery: str, number: int | None, history: History, in_memory: Collection[int]
    ) -> GallerySearch:
        """A gallery as a release embedded it, or as it is now: by what embedded it before, where
        what embedded it last cannot answer yet. history: of this name, as it was known last.
        in_memory: the releases that answer without being loaded. Raises `RequestError` for a
        gallery that is not there, that another name's releases embed, or that only releases
        embedded which the history does not have."""
        try:
            head = head_of(self._home, gallery)
            if head.facts["release"] != self._name:
                raise RequestError(
                    404, f"{gallery!r} is embedded by releases of {head.facts['release']}, and "
                    f"this server answers with those of {self._name}",
                )  # fmt: skip
            if number is None:
                found = self._that_answers(head, history, in_memory)
            else:
                found = gallery_of(self._home, head, history, number)
        except InputError as error:
            raise RequestError(404, str(error)) from error
        search = GallerySearch.of(self._home, found)
        key = tuple((part.gallery.artifact.digest, str(part.index)) for part in search.parts)
        with self._lock:
            search = self._open.pop(key, search)
            self._open[key] = search
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return search

    def _that_answers(
        self, head: Head, history: History, in_memory: Collection[int]
    ) -> FoundGallery:
        """The gallery as it is, or as it was last before by what can answer. What is live and not
        in memory is waited for only where nothing else can."""

        def can_answer(number: int) -> bool:
            return number in in_memory or self._loader.is_there(number, history)

        def answers_now(number: int) -> bool:
            return number in in_memory or (number != history.live and can_answer(number))

        embedders = [history.released_as(weights) for weights in embedders_of(head)]
        numbers = [number for number in embedders if number is not None]
        if len(numbers) == len(embedders) and all(map(answers_now, numbers)):
            return gallery_of(self._home, head, history)
        for answers in (in_memory.__contains__, can_answer):
            before = gallery_before(self._home, head, history, answers)
            if before is not None:
                return before
        if len(numbers) < len(embedders):
            raise RequestError(
                503, f"{head.asset.partition('/')[2]!r} is embedded by a release that came just "
                "now, or since the log of releases could be read here: ask again in a second, or "
                "see /readyz",
            )  # fmt: skip
        return gallery_of(self._home, head, history)
