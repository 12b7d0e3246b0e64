"""Searches a gallery by a text or a picture, with the weights that embedded it and no others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.galleries.finding import FoundGallery
from fomo_dagster.galleries.searching import check_size, nearest_rows, rows_at
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.paths import problem_of, said_of

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.galleries.files import Floats
    from fomo_dagster.galleries.hnsw import IndexReader


@dataclass(frozen=True)
class GallerySearch:
    """Queries of a gallery. A query is embedded on the CPU: others may need the devices.

    index: the file of its index, by which it is searched; None: exactly.
    """

    gallery: FoundGallery
    index: Path | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """What embeds queries: the weights that embedded the gallery, in its precision."""
        from fomo_dagster.evaluation.encoding import Encoder

        backbone = Backbone.model_validate(dict(self.gallery.candidate.backbone))
        model = load_weights(backbone, self.gallery.weights.path(WEIGHTS))
        return Encoder.of(model, self.gallery.precision, Execution(device="cpu"))

    def by_text(self, text: str, top: int) -> pl.DataFrame:
        """The `top` rows nearest to a text, as `nearest_rows` gives them."""
        return self.nearest(self.encoder.texts([text])[0].numpy(), top)

    def by_image(self, path: Path, top: int) -> pl.DataFrame:
        """The `top` rows nearest to a picture, which is decoded as those of the gallery are. Raises
        `InputError` for a file that is none."""
        if (problem := problem_of(path, "file")) is not None:
            raise InputError(problem)
        decoding = Decoding.from_data(self.gallery.facts["decoding"])
        try:
            picture = decoded(path.read_bytes(), decoding)
        except OSError as error:
            raise InputError(said_of(error, path)) from error
        except UnreadableImageError as error:
            raise InputError(f"{path} cannot be decoded ({error}): name an image") from error
        return self.nearest(self.encoder.picture(picture, str(path)).numpy(), top)

    def nearest(self, query: Floats, top: int) -> pl.DataFrame:
        """The `top` rows nearest to what the weights that embedded the gallery make of a query,
        (D,), of length 1."""
        if self._reader is None:
            return nearest_rows(self.gallery.file, query, top)
        check_size(self.gallery.file, query)
        places, similarities = self._reader.nearest(query, top)
        return rows_at(self.gallery.file, places.tolist(), similarities.tolist())

    @cached_property
    def _reader(self) -> IndexReader | None:
        from fomo_dagster.galleries.hnsw import IndexReader

        return None if self.index is None else IndexReader(self.index)
