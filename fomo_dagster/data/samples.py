"""The tables of samples that pass between parts, and the digests of their content.

A row is a sample. Keys are unique within a split. `digest` identifies the stored image, so two
tables with equal content digests bring equal images with equal texts. Image bytes are not covered:
`data/shards.py` stores them and `data/index.py` reads them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of

SPLITS = ("train", "test")

SAMPLES: dict[str, pl.DataType] = {
    "split": pl.String(),  # "train" or "test"
    "key": pl.String(),
    "concept": pl.String(),
    "captions": pl.List(pl.String()),  # may be empty
    "digest": pl.String(),
}
SCAN: dict[str, pl.DataType] = {**SAMPLES, "reference": pl.String()}  # what `Source.read` needs
INDEX: dict[str, pl.DataType] = {
    **SAMPLES,
    "shard": pl.String(),  # file name of the tar
    "offset": pl.Int64(),  # of the image's first byte in the tar
    "size": pl.Int64(),  # bytes
}
QUARANTINE: dict[str, pl.DataType] = {
    "split": pl.String(),
    "key": pl.String(),
    "digest": pl.String(),  # the source's, before any resizing; empty if no image was read
    "samples": pl.Int64(),  # that are lost with it: more than one where it is a whole tar
    "reason": pl.String(),
}
MANIFEST: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "concept": pl.String(),
    "key": pl.String(),
    "captions": pl.List(pl.String()),
    "digest": pl.String(),
}


def check_keys(samples: pl.DataFrame, where: str) -> None:
    """Raise `DataError`, which names them, if keys repeat in a split (columns split and key)."""
    same = samples.filter(pl.struct("split", "key").is_duplicated())
    if same.height:
        split, key = same.select("split", "key").row(0)
        count = same.select("split", "key").unique().height
        raise DataError(
            f"{where} has {count} keys that several samples share, such as {key!r} in split "
            f"{split!r}: every sample needs a key of its own"
        )


def concept_digests(samples: pl.DataFrame, split: str) -> dict[str, str]:
    """Per concept of a split, the digest of its samples' keys, captions and image digests.

    It depends neither on the order of the rows nor on other concepts; the order of a sample's
    captions counts. What is hashed, of a concept's n samples sorted by key, is n, then every
    length in bytes (keys, digests, numbers of captions, captions), then the texts themselves, so
    that no two different contents give the same bytes.
    """
    rows = samples.filter(pl.col("split") == split).sort("concept", "key")
    captions = rows["captions"].explode(empty_as_null=False)
    incomplete = [name for name in rows.columns if rows[name].null_count()]
    if incomplete or captions.null_count():
        raise DataError(
            f"the table of samples has empty values in {', '.join(incomplete) or 'captions'}; "
            "every sample needs its key, concept and digest, and a list of captions (it may be [])"
        )
    key_lengths, digest_lengths = _lengths(rows["key"]), _lengths(rows["digest"])
    caption_counts = _counts(rows["captions"].list.len())
    caption_lengths = _lengths(captions)
    texts = rows.group_by("concept", maintain_order=True).agg(
        pl.len().alias("samples"),
        pl.col("key").str.join(""),
        pl.col("digest").str.join(""),
        pl.col("captions").explode(empty_as_null=False).str.join(""),
    )
    digests: dict[str, str] = {}
    row = caption = 0
    for concept, count, *columns in texts.iter_rows():
        next_row = row + count
        next_caption = caption + int(caption_counts[row:next_row].sum())
        content = hashlib.sha256(count.to_bytes(8, "little"))
        content.update(key_lengths[row:next_row].data)
        content.update(digest_lengths[row:next_row].data)
        content.update(caption_counts[row:next_row].data)
        content.update(caption_lengths[caption:next_caption].data)
        for text in columns:
            content.update(text.encode())
        digests[concept] = content.hexdigest()[:DIGEST_LENGTH]
        row, caption = next_row, next_caption
    return digests


def split_digest(samples: pl.DataFrame, split: str) -> str:
    """Digest of a split's content: of its concepts and theirs."""
    return digest_of(concept_digests(samples, split))


def content_digest(samples: pl.DataFrame) -> str:
    """Digest of a dataset's content, both splits; equal contents have equal ones anywhere."""
    return digest_of({split: split_digest(samples, split) for split in SPLITS})


def _lengths(texts: pl.Series) -> npt.NDArray[np.uint64]:
    """UTF-8 lengths in bytes, (N,)."""
    return _counts(texts.str.len_bytes())


def _counts(values: pl.Series) -> npt.NDArray[np.uint64]:
    """Contiguous and little-endian, so that their bytes are the same on every platform."""
    return np.ascontiguousarray(values.to_numpy(), dtype="<u8")
