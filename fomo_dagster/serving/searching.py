"""The galleries of a server: each as the release embedded it that a request is answered by."""

from __future__ import annotations

import io
from collections import OrderedDict
from threading import Lock
from typing import Any

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.declaration import FOLDER
from fomo_dagster.galleries.finding import embedders_of, gallery_of, head_of
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.sample_images import SampleImages
from fomo_dagster.home import Home, project_folder
from fomo_dagster.releases.records import History
from fomo_dagster.serving.limits import RequestError

MOST_OPEN = 8  # which keep their index mapped
SIDE, QUALITY = 224, 85  # pixels of a thumbnail's longer side; of its JPEG


class Galleries:
    """Those that releases of a name embed. Threads may share it."""

    def __init__(self, home: Home, name: str) -> None:
        self._home, self._name = home, name
        self._open: OrderedDict[tuple[tuple[str, str], ...], GallerySearch] = OrderedDict()
        self._lock = Lock()
        self._images = SampleImages(lambda: RunContext(build_project(project_folder()), home))
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

    def thumbnail(self, gallery: str, split: str, key: str, history: History) -> bytes:
        """The image of one of a gallery's rows, small, as JPEG. Raises `RequestError` where it is
        not there."""
        search = self.open(gallery, None, history)
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

    def open(self, gallery: str, number: int | None, history: History) -> GallerySearch:
        """A gallery as it is now, or as a release embedded it. history: of this name, as it was
        known last. Raises `RequestError` for one that is not there, that another name's releases
        embed, or that a release embedded which the history does not have."""
        try:
            head = head_of(self._home, gallery)
            if head.facts["release"] != self._name:
                raise RequestError(
                    404, f"{gallery!r} is embedded by releases of {head.facts['release']}, and "
                    f"this server answers with those of {self._name}",
                )  # fmt: skip
            if None in map(history.released_as, embedders_of(head)):
                raise RequestError(
                    503, f"{gallery!r} is embedded by a release that came just now, or since the "
                    "log of releases could be read here: ask again in a second, or see /readyz",
                )  # fmt: skip
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
