"""Searches a gallery by a text or a picture, with the weights that embedded it and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.galleries.files import EmbeddingsReader
from fomo_dagster.galleries.finding import FoundGallery, index_of
from fomo_dagster.galleries.mixing import CommonRows
from fomo_dagster.galleries.searching import Place, check_size, nearest_rows, ranked, rows_at
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.home import Home
from fomo_dagster.paths import problem_of, said_of

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.galleries.files import Floats
    from fomo_dagster.galleries.hnsw import IndexReader

_BEGIN: Place = ("", "")


@dataclass(frozen=True)
class GallerySearch:
    """Queries of a gallery. A query is embedded on the CPU: others may need the devices.

    index: the file of its index, by which it is searched; None: exactly. rest: where the gallery is
    being refreshed, the search of the rows that it does not have yet.
    """

    gallery: FoundGallery
    index: Path | None = None
    rest: GallerySearch | None = None

    @classmethod
    def of(cls, home: Home, gallery: FoundGallery, *, exact: bool = False) -> GallerySearch:
        """The search of a gallery that was found, and of all its rest. exact: around indexes."""
        rest = None
        for part in reversed(gallery.rest):
            rest = cls(part, None if exact else index_of(home, part), rest)
        return cls(gallery, None if exact else index_of(home, gallery), rest)

    @property
    def parts(self) -> Iterator[GallerySearch]:
        """This one, and those of the rest: each needs a query of its own weights."""
        yield self
        if self.rest is not None:
            yield from self.rest.parts

    @property
    def is_exact(self) -> bool:
        """Whether it looks at all rows."""
        return all(part.index is None for part in self.parts)

    @cached_property
    def encoder(self) -> Encoder:
        """What embeds queries: the weights that embedded the gallery, in its precision."""
        from fomo_dagster.evaluation.encoding import Encoder

        backbone = Backbone.model_validate(dict(self.gallery.candidate.backbone))
        model = load_weights(backbone, self.gallery.weights.path(WEIGHTS))
        return Encoder.of(model, self.gallery.precision, Execution(device="cpu"), self._pixels)

    @property
    def _pixels(self) -> Pixels:
        """How the gallery's images were decoded and resized."""
        return Pixels.of(self.gallery.artifact.manifest["recipe"]["parameters"])

    def by_text(self, text: str, top: int) -> pl.DataFrame:
        """The `top` rows nearest to a text, as `nearest` gives them."""
        return self._by(lambda encoder: encoder.texts([text])[0].numpy(), top)

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
        return self._by(lambda encoder: encoder.picture(picture, str(path)).numpy(), top)

    def _by(self, embedded: Callable[[Encoder], Floats], top: int) -> pl.DataFrame:
        return self.nearest([embedded(part.encoder) for part in self.parts], top)

    def nearest(self, queries: Sequence[Floats], top: int, after: Place = _BEGIN) -> pl.DataFrame:
        """`FOUND` of the `top` rows nearest to a query, as `nearest_rows`.

        queries: what the weights of each of `parts` make of it, (D,), of length 1. Similarities of
        the rest are shifted to those of the newest weights (`mixing`). after: only rows after this
        place.
        """
        own = self._nearest(queries[0], top, after)
        if self.rest is None:
            return own
        import polars as pl

        others = self.rest.nearest(queries[1:], top, max(after, self._last))
        shift = self._common.shift(queries[0], queries[1])
        others = others.with_columns(pl.col("similarity") + shift)
        both = pl.concat([own, others])
        in_order = both.sort(
            "similarity", "split", "key", "text", descending=[True, False, False, False]
        )
        return ranked(in_order.head(top))

    def _nearest(self, query: Floats, top: int, after: Place) -> pl.DataFrame:
        """Those of this part alone."""
        if self._reader is None:
            return nearest_rows(self.gallery.file, query, top, after)
        check_size(self.gallery.file, query)
        if after not in self._starts:
            self._starts[after] = EmbeddingsReader(self.gallery.file).count_until(*after)
        start = self._starts[after]
        places, similarities = self._reader.nearest(query, top, start)
        if len(places) < min(top, EmbeddingsReader(self.gallery.file).rows - start):
            # The graph does not lead to as many of the rows that count.
            return nearest_rows(self.gallery.file, query, top, after)
        return rows_at(self.gallery.file, places.tolist(), similarities.tolist())

    @cached_property
    def _starts(self) -> dict[Place, int]:
        """How many rows come up to a place, of those that were asked for: all keys are read."""
        return {_BEGIN: 0}

    @cached_property
    def _last(self) -> Place:
        return EmbeddingsReader(self.gallery.file).last

    @cached_property
    def _common(self) -> CommonRows:
        assert self.rest is not None
        return CommonRows.of(self.gallery.file, self.rest.gallery.file)

    @cached_property
    def _reader(self) -> IndexReader | None:
        from fomo_dagster.galleries.hnsw import IndexReader

        return None if self.index is None else IndexReader(self.index)
