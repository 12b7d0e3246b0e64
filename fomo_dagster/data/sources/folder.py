"""Images in a folder per class, with an optional table of captions.

`path/train/<concept>/…` and `path/test/<concept>/…`, one of the two, or `path/<concept>/…`; where
there is no `test` folder beside the training images, a share of every concept is held out. Images
may lie in folders below a concept's. A key is the path below the split's folder. A retrieval
dataset may have its images without class folders: then the dataset is the one concept.

Hidden files and folders are ignored, and so are files that are not images. Links are followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from fomo_dagster.data.samples import SPLITS
from fomo_dagster.data.sources.files import (
    IMAGE_SUFFIXES,
    DigestCache,
    is_image,
    read_reference,
    reference_of,
    shortlist,
)
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.source import as_scan
from fomo_dagster.data.sources.splits import held_out
from fomo_dagster.errors import DataError, InputError

FOUND = {
    "split": pl.String(),
    "concept": pl.String(),
    "key": pl.String(),
    "path": pl.String(),  # where the file is
    "place": pl.String(),  # its path below the dataset's folder, as a table of captions names it
}


class FolderImages:
    """The images below `root`.

    `one_concept`: the concept of images that lie in no class folder; None forbids them.
    """

    def __init__(
        self,
        root: Path,
        *,
        captions: Path | None,
        test_share: float,
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.root = root
        self.captions = captions
        self.test_share = test_share
        self.one_concept = one_concept
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`. Raises `InputError` where there is no such folder, and `DataError` for
        a layout that is none of the above, a concept without images, or captions without images.
        """
        if not self.root.is_dir():
            raise InputError(f"there is no folder {self.root}")
        try:
            folders = self._split_folders()
            rows = [row for split, folder in folders.items() for row in self._split(split, folder)]
        except OSError as error:
            raise DataError(f"cannot look into {error.filename}: {error.strerror}") from error
        found = pl.DataFrame(rows, schema=FOUND, orient="row")
        if "test" not in folders:
            found = found.with_columns(held_out(found, self.test_share))
        digests = self.cache.digests(found["path"].to_list(), f"the folder {self.root}")
        references = map(reference_of, found["path"], digests)
        return as_scan(
            found.with_columns(
                self._captions(found),
                pl.Series("digest", digests, pl.String),
                pl.Series("reference", list(references), pl.String),
            )
        )

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        return read_reference(reference)

    def _split_folders(self) -> dict[str, Path]:
        """The folder of each split; all under "train" where the split is still to be made."""
        names = {entry.name for entry in _visible(self.root) if _is_folder(entry)}
        if names and names <= set(SPLITS):
            return {split: self.root / split for split in SPLITS if split in names}
        for split in names & set(SPLITS):
            if any(_is_folder(entry) for entry in _visible(self.root / split)):
                others = sorted(names - set(SPLITS))
                raise DataError(
                    f"{self.root} holds {split!r} with class folders beside {shortlist(others)}: "
                    "keep only 'train' and 'test', or only class folders"
                )
        return {"train": self.root}

    def _split(self, split: str, folder: Path) -> Iterator[tuple[str, str, str, str, str]]:
        """The rows (see FOUND) of one split's folder."""
        entries = _visible(folder)
        concepts = [entry.name for entry in entries if _is_folder(entry)]
        loose = [entry.name for entry in entries if is_image(entry.name) and not _is_folder(entry)]
        if loose and not concepts and self.one_concept is not None:
            images = {self.one_concept: [str(folder / name) for name in loose]}
        elif loose:
            raise DataError(
                f"{folder} has images outside of class folders: {shortlist(loose)}; move each into "
                "the folder of its concept"
                + ("" if concepts else ", or declare `task: retrieval` if there are no concepts")
            )
        elif not concepts:
            raise DataError(f"{folder} has no images and no class folders")
        else:
            above = {_identity(path) for path in (self.root, folder)}
            images = {concept: _images(folder / concept, above) for concept in concepts}
        for concept, paths in images.items():
            for path in paths:
                _check_text(path)
                yield split, concept, _below(folder, path), path, _below(self.root, path)

    def _captions(self, found: pl.DataFrame) -> pl.Series:
        """The list of captions of each image found, in the order of the table."""
        if self.captions is None:
            return pl.Series("captions", [[]] * found.height, pl.List(pl.String))
        rows = read_rows(self.captions, ["path", "caption"], [])
        rows = rows.with_columns(
            pl.Series(
                "path", [os.path.normpath(path).replace(os.sep, "/") for path in rows["path"]]
            )
        )
        missing = rows.join(found, left_on="path", right_on="place", how="anti")["path"].unique()
        if len(missing):
            raise DataError(
                f"{self.captions} names {len(missing)} images that are not in {self.root}: "
                f"{shortlist(missing.sort().to_list())}; its paths start from that folder"
            )
        texts = rows.group_by("path").agg(
            pl.col("caption").explode(empty_as_null=False).alias("captions")
        )
        joined = found.join(
            texts, left_on="place", right_on="path", how="left", maintain_order="left"
        )
        return joined["captions"].fill_null([])


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link that leads nowhere, or in circles, is no folder; `DirEntry.is_dir` raises for some.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _identity(folder: Path | str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _images(concept: Path, above: set[tuple[int, int]]) -> list[str]:
    """The images of a concept's folder, without those of a link back to a folder `above`."""
    files = list(_files(concept, set(above)))
    images = [file for file in files if is_image(file)]
    if not images:
        raise DataError(
            f"the concept folder {concept} has no images ({len(files)} other files; images end in "
            f"{' '.join(IMAGE_SUFFIXES)}): add some, or remove the folder"
        )
    return images


def _files(folder: Path | str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """All visible files below, in order of names; a folder in `seen` (device and inode) is not
    entered again, so that links in circles end."""
    identity = _identity(folder)
    if identity in seen:
        return
    seen.add(identity)
    for entry in _visible(folder):
        if _is_folder(entry):
            yield from _files(entry.path, seen)
        else:
            yield entry.path


def _below(folder: Path, path: str) -> str:
    """The part of `path` below `folder`, with slashes; `Path.relative_to` is ten times slower."""
    return path[len(str(folder).rstrip(os.sep)) + 1 :].replace(os.sep, "/")


def _check_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name of {path!r} is not UTF-8: rename the file") from None
