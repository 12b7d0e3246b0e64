"""Images in a folder per class, with optional captions.

`path/train/<concept>/…` and `path/test/<concept>/…`, one of the two, or `path/<concept>/…`; which
folders are splits, `splits.py` says. Where there is no test split, a share of every concept is held
out. Images may lie in folders below a concept's. A key is the path below the split's folder or,
where several folders make up a split, below the dataset's. A retrieval dataset may have its images
without class folders: then the dataset is the one concept.

Links are followed. Files that are no images are counted and named; hidden ones only where they end
as images do. Hidden folders, and what Windows and macOS leave behind, are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import polars as pl

from fomo_dagster.data.formats import has_image_suffix, is_image
from fomo_dagster.data.samples import QUARANTINE
from fomo_dagster.data.sources.files import (
    DigestCache,
    read_reference,
    shortlist,
)
from fomo_dagster.data.sources.folder.beside import texts_beside
from fomo_dagster.data.sources.folder.captions import Captions
from fomo_dagster.data.sources.folder.unused import NO_IMAGE, Unused, by_reason
from fomo_dagster.data.sources.source import Inspection, as_scan, in_one_form
from fomo_dagster.data.sources.splits import (
    Assignment,
    SplitRule,
    assign,
    held_out,
    hinted,
    kind_of,
)
from fomo_dagster.data.sources.walking import (
    files_below,
    identity_of,
    is_folder,
    path_below,
    visible,
)
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.paths import problem_of, said_of
from fomo_dagster.texts import as_text, is_text


class Found(NamedTuple):
    """An image that was found. place: its path below the dataset's folder, by which a table of
    captions names it. folder: that which it lies in, below its split's."""

    split: str
    concept: str
    key: str
    path: str
    place: str
    folder: str


ClassFolder: TypeAlias = Literal["top", "nearest", "path"]

FOUND = dict.fromkeys(Found._fields, pl.String())


class FolderImages:
    """The images below `root`.

    captions: where they are; None: there are none. split_rule: its names are those of folders;
    empty: all folders are classes. class_folder: which of the folders that an image lies in names
    its class: the first below its split's, the last, or all. one_concept: the concept of images
    that lie in no class folder; None forbids them.
    """

    def __init__(
        self,
        root: Path,
        *,
        captions: Captions | None,
        split_rule: SplitRule,
        class_folder: ClassFolder = "top",
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.root = root
        self.class_folder = class_folder
        self.captions = captions
        self.split_rule = split_rule
        self.one_concept = one_concept
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def inspect(self) -> Inspection:
        """The samples, and what the folder holds beside them.

        Raises `InputError` if there is no such folder, and `DataError` for a layout that is none
        of the above, a concept without images, or captions without images.
        """
        return self._look(digests=True)

    def listing(self) -> Inspection:
        """See `ListingSource.listing`."""
        return self._look(digests=False)

    def _look(self, *, digests: bool) -> Inspection:
        if (problem := problem_of(self.root, "folder")) is not None:
            raise InputError(problem)
        unused: list[Unused] = []
        warnings: tuple[str, ...] = ()
        try:
            splits = self._splits()
            folders = [(ours, name) for ours, names in splits.of.items() for name in names]
            rows = [
                row for ours, name in folders for row in self._split(ours, name, splits, unused)
            ]
            if not folders:
                rows = list(self._split("train", "", splits, unused))
            else:
                unused += self._outside(splits)
        except OSError as error:
            raise DataError(said_of(error, self.root)) from error
        found, unusable = self._with_names(rows)
        if self.captions is None:
            found = found.with_columns(captions=pl.lit([], pl.List(pl.String)))
        else:
            captioned = self.captions.of(found, unused)
            found, warnings = captioned.found, captioned.warnings
            unusable = pl.concat([unusable, captioned.unusable])
            unused = [file for file in unused if file.place not in captioned.used]
        found = in_one_form(found)
        if "test" not in splits.of:
            found = found.with_columns(held_out(found, self.split_rule.test_share))
        if self.split_rule.names is None and self.one_concept is None:
            self._check_shared(found, splits)
            warnings = (*warnings, *self._deeper(found))
        warnings = (*warnings, *self._merged(found), *self._read_as_captions(found, unused))
        found, size = self.cache.with_references(
            found, found["path"].to_list(), f"the folder {self.root}", digests=digests
        )
        warnings = (*splits.notes, *warnings, *self._said_of(unused))
        return Inspection(as_scan(found), warnings=warnings, unusable=unusable, bytes=size)

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        return read_reference(reference)

    def _with_names(self, rows: Sequence[Found]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """FOUND, and the images whose names are no text (QUARANTINE).

        Raises `DataError` for a class of which that is so, and for two images of one name.
        """
        spoiled = [row for row in rows if not is_text(row.path)]
        for row in spoiled:
            if not is_text(row.concept):
                raise DataError(
                    f"the class folder {row.concept!r} in {self.root} has a name that is not "
                    "UTF-8: rename it"
                )
        why = "its name is not UTF-8: rename the file"
        left_out = [(row.split, as_text(row.key), "", 1, why) for row in spoiled]
        found = pl.DataFrame([row for row in rows if is_text(row.path)], schema=FOUND, orient="row")
        found = found.with_columns(pl.col("key", "place").str.normalize("NFC"))
        same = found.filter(pl.col("place").is_duplicated())
        if same.height:
            first = same.filter(place=same["place"][0])["path"].to_list()
            raise DataError(
                f"{' and '.join(map(ascii, first[:2]))} are one name, its letters composed in two "
                "ways: rename one"
            )
        return found, pl.DataFrame(left_out, schema=QUARANTINE, orient="row")

    def _splits(self) -> Assignment:
        """What each folder below the root is for; none where all are class folders."""
        names = [entry.name for entry in visible(self.root) if is_folder(entry)]
        where = f"the folder {self.root}"
        if self.split_rule.names is not None:
            deeper = [
                name
                for several in self.split_rule.names.values()
                for name in several
                if len(Path(name).parts) > 1
                and not {"..", "/"} & set(Path(name).parts)
                and (self.root / name).is_dir()
            ]
            return assign([*names, *deeper], self.split_rule.names, where)
        named = [name for name in names if kind_of(name)]
        if len(named) == len(names):
            return assign(names, None, where)
        hints = {name: kind for name in names if (kind := hinted(name))}
        likely = list(hints) if len(set(hints.values())) > 1 else named
        for name in likely:
            if len(likely) == len(names) or self._has_folders(name):
                others = sorted(set(names) - {name})
                raise DataError(
                    f"{self.root} holds {name!r}, which could be a split or a class, beside "
                    f"{shortlist(others)}: keep only folders of splits, or only class folders, or "
                    "declare which is which (`splits: {train: […], test: […]}`; `splits: {}`: all "
                    "are classes)"
                )
        return Assignment({})

    def _has_folders(self, name: str) -> bool:
        return any(is_folder(entry) for entry in visible(self.root / name))

    def _split(
        self, split: str, name: str, splits: Assignment, unused: list[Unused]
    ) -> Iterator[Found]:
        """The images of one split's folder, of that name below the root."""
        folder = self.root / name
        alone = len(splits.of.get(split, ())) < 2
        entries = visible(folder)
        concepts = [entry.name for entry in entries if is_folder(entry)]
        loose = []
        for entry in entries:
            if not is_folder(entry):
                problem = self._problem(entry)
                if problem is None:
                    loose.append(entry.name)
                else:
                    unused.append(Unused(path_below(self.root, entry.path), problem))
        if loose and not concepts and self.one_concept is not None:
            images = {self.one_concept: [str(folder / name) for name in loose]}
        elif loose:
            raise DataError(
                f"{folder} has images outside of class folders: {shortlist(loose)}; move each into "
                "the folder of its concept"
                + (
                    ""
                    if concepts
                    else f"; where this folder is one class of several, `path` is {folder.parent}; "
                    "where there are no classes, declare `task: retrieval`"
                )
                + (", or leave it out: `splits` names the folders that count" if name else "")
            )
        elif not concepts:
            raise DataError(
                f"{folder} has no images and no class folders: put images into a folder for each "
                "class, or correct the source's `path`"
            )
        else:
            self._check_concepts(folder, concepts)
            above = {identity_of(path) for path in (self.root, folder)}
            images = {
                concept: self._images(folder / concept, above, unused) for concept in concepts
            }
        for concept, paths in images.items():
            for path in paths:
                key = path_below(folder if alone else self.root, path)
                within = path_below(folder, path).rpartition("/")[0]
                if self.class_folder != "top" and within:
                    concept = (
                        within.rpartition("/")[2] if self.class_folder == "nearest" else within
                    )
                yield Found(split, concept, key, path, path_below(self.root, path), within)

    def _check_concepts(self, folder: Path, concepts: Sequence[str]) -> None:
        if self.split_rule.names is None and folder != self.root and all(map(kind_of, concepts)):
            raise DataError(
                f"{folder} holds {shortlist(concepts)}, which are names of splits, and no other "
                f"class: say with the source's `splits` which folders are the splits, such as "
                f"`splits: {{train: [{folder.name}/{concepts[0]}]}}`"
            )

    def _check_shared(self, found: pl.DataFrame, splits: Assignment) -> None:
        """Refuse splits that have no class in common: then one is likely to have none at all."""
        classes = [set(found.filter(split=split)["concept"]) for split in splits.of]
        if len(classes) > 1 and all(classes) and not classes[0] & classes[1]:
            (train,), (test,) = splits.of.values()
            raise DataError(
                f"the splits of {self.root} have no class in common: {train!r} has "
                f"{shortlist(sorted(classes[0]))}, {test!r} has {shortlist(sorted(classes[1]))}; "
                "move the images into the folders of their classes, or say with the source's "
                f"`splits` that it is meant so (`splits: {{train: [{train}], test: [{test}]}}`) or "
                f"that one has no classes (`splits: {{train: [{train}]}}`)"
            )

    def _deeper(self, found: pl.DataFrame) -> Iterator[str]:
        """A sentence where what is taken for a class could be a folder of classes."""
        below = found["key"].str.split("/").list.tail(-1)
        if self.class_folder != "top" or not (below.list.len() > 1).all():
            return
        folders = found.select("concept", below.list.first().alias("folder")).unique()
        classes = folders["concept"].n_unique()
        shared = folders.filter(pl.col("folder").is_duplicated())["folder"].unique().sort()
        if classes == 1 and folders.height > 1:
            yield (
                f"the folder {self.root} has the one class {folders['concept'][0]!r}, and all "
                f"images lie in {folders.height} folders below it: where these are the classes, "
                "let `path` or `splits` lead to the folder that holds them, or declare "
                "`class_folder: nearest`"
            )
        elif 1 < len(shared) >= folders["folder"].n_unique() / 2:
            yield (
                f"the folder {self.root} has {classes} classes, and folders below several of them "
                f"have the same names: {shortlist(shared.to_list())}; where these are the classes, "
                "declare `class_folder: nearest`"
            )

    def _merged(self, found: pl.DataFrame) -> Iterator[str]:
        """A sentence where folders of one name in different places are one class."""
        if self.class_folder != "nearest":
            return
        folders = found.group_by("concept").agg(pl.col("folder").unique().sort())
        several = folders.filter(pl.col("folder").list.len() > 1).sort("concept")
        if several.height:
            concept, places = several.row(0)
            yield (
                f"the folder {self.root} has {several.height} classes that are made of several "
                f"folders of one name, such as {concept!r}: {shortlist(places)}; `class_folder: "
                "path` tells them apart"
            )

    def _read_as_captions(self, found: pl.DataFrame, unused: Sequence[Unused]) -> Iterator[str]:
        """A sentence where files that are not read could be captions."""
        if self.captions is None and (beside := texts_beside(found["place"].to_list(), unused)):
            first = next(iter(beside.values()))[0]
            yield (
                f"the folder {self.root} has {len(beside)} images with a text of their name, such "
                f"as {first!r}, which is not read: `captions: beside` reads it as their caption"
            )

    def _check_inside(self, concept: Path, images: Sequence[str]) -> None:
        """Refuse splits below a class: whoever mixes them tests on what it trained on."""
        if self.split_rule.names is not None:
            return
        below = {path_below(concept, path).partition("/") for path in images}
        inside = sorted({name for name, slash, _ in below if slash and kind_of(name)})
        if len(set(map(kind_of, inside))) > 1:
            raise DataError(
                f"{concept} holds {shortlist(inside)}: splits belong above the classes "
                "(`train/<concept>/…`, `test/<concept>/…`); move them there, or declare "
                "`splits: {}` to take all as images of the class"
            )

    def _images(
        self, concept: Path, above: set[tuple[int, int]], unused: list[Unused]
    ) -> list[str]:
        """The images of a concept's folder, without those of a link back to a folder `above`."""
        images, others = [], []
        for entry in files_below(concept, set(above)):
            problem = self._problem(entry)
            if problem is None:
                images.append(entry.path)
            else:
                others.append(Unused(path_below(self.root, entry.path), problem))
        if not images:
            raise DataError(
                f"the concept folder {concept} has no images"
                + (f" (other files: {by_reason(others)})" if others else "")
                + ": add some, or remove the folder; where another folder here holds the classes, "
                "`path` is that one"
            )
        self._check_inside(concept, images)
        unused += others
        return images

    def _problem(self, entry: os.DirEntry[str]) -> str | None:
        """Why a file is no image that is used; None if it is one."""
        if entry.name.startswith("."):
            return "hidden"
        try:
            is_file = entry.is_file()
        except OSError:  # as of a link to itself
            is_file = False
        if entry.is_symlink() and not os.path.exists(entry.path):
            return None if has_image_suffix(entry.name) else "a link to nothing"
        if not is_file:
            return "no plain file"
        if is_image(entry.path):
            return None
        return f"{NO_IMAGE} ({os.path.splitext(entry.name)[1].lower() or 'none'})"

    def _outside(self, splits: Assignment) -> Iterator[Unused]:
        """What lies in no split: files beside the splits' folders, images in others."""
        used = {name.partition("/")[0] for names in splits.of.values() for name in names}
        for entry in visible(self.root):
            if not is_folder(entry):
                yield Unused(entry.name, self._problem(entry) or "outside of the splits")
            elif entry.name not in used:
                for file in files_below(entry.path, {identity_of(self.root)}):
                    if has_image_suffix(file.name):
                        yield Unused(path_below(self.root, file.path), "outside of the splits")

    def _said_of(self, unused: Sequence[Unused]) -> Iterator[str]:
        if unused:
            yield (
                f"the folder {self.root} holds {len(unused)} files that are not used: "
                f"{by_reason(unused)}"
            )
