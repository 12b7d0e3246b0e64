"""The galleries of a server: each as the release embedded it that a request is answered by."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.finding import embedded_gallery, index_of
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.home import Home
from fomo_dagster.serving.limits import RequestError

MOST_OPEN = 8  # which keep their index mapped


class Galleries:
    """Those that releases of a name embed. Threads may share it."""

    def __init__(self, home: Home, name: str) -> None:
        self._home, self._name = home, name
        self._open: OrderedDict[tuple[str, str], GallerySearch] = OrderedDict()
        self._lock = Lock()

    def open(self, gallery: str, number: int | None) -> GallerySearch:
        """A gallery as it is now, or as a release embedded it. Raises `RequestError` for one that
        is not there, or that another name's releases embed."""
        try:
            found = embedded_gallery(self._home, gallery, number)
        except InputError as error:
            raise RequestError(404, str(error)) from error
        if found.facts["release"] != self._name:
            raise RequestError(
                404, f"{gallery!r} is embedded by releases of {found.facts['release']}, and this "
                f"server answers with those of {self._name}",
            )  # fmt: skip
        index = index_of(self._home, found)
        key = found.artifact.digest, "" if index is None else str(index)
        with self._lock:
            search = self._open.pop(key, None) or GallerySearch(found, index)
            self._open[key] = search
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return search
