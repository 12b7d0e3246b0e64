"""Captions in a file beside each image: `dog.txt`, `dog.caption` or `dog.json` for `dog.jpg`.

`dog.jpg.txt` goes before `dog.txt`, so that images of one name and two formats can each have their
own. A text counts before a JSON, as in tars. A JSON is a text, a list of texts, or an object that
has either under a key. A blank text is no caption.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import polars as pl

from fomo_dagster.data.sources.files import FILES_PER_TASK, shortlist
from fomo_dagster.data.sources.folder.captions import Captioned, without_spoiled
from fomo_dagster.data.sources.folder.unused import NO_IMAGE, Unused
from fomo_dagster.data.sources.tables import TableFormat, encoding_of
from fomo_dagster.data.sources.webdataset.members import LARGEST_TEXT
from fomo_dagster.errors import DataError
from fomo_dagster.paths import said_of
from fomo_dagster.texts import composed, is_text, read_json

TEXTS, ABOUT = (".txt", ".caption"), ".json"
LINE_END = re.compile(r"\r\n|\r|\n")

Lines: TypeAlias = Literal["first", "each", "whole"]


class Read(NamedTuple):
    """What a file beside an image holds. problem: why it cannot be used. lines: how many of a text
    are not blank. keys: those of a JSON object that has not the one that was looked for."""

    captions: tuple[str, ...] = ()
    problem: str | None = None
    lines: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionsBeside:
    """The captions beside the images of the folder `root`.

    form: the encoding of texts without a byte order mark, and what `caption` is called in a JSON.
    lines: what is a caption where a text has several lines: the first, each of them, or the whole.
    """

    root: Path
    form: TableFormat
    lines: Lines | None

    def of(self, found: pl.DataFrame, unused: Sequence[Unused]) -> Captioned:
        """`found`, images with their `place` below `root`, with what is among `unused` beside them.

        Raises `DataError` if no image has a caption, and where texts have several lines of which
        nothing is declared.
        """
        beside = texts_beside(found["place"].to_list(), unused)
        chosen = {place: files[0] for place, files in beside.items()}
        owners = Counter(chosen.values())
        read = dict(zip(owners, self._read_all(list(owners)), strict=True))
        self._check_lines(read)
        reasons, captions = {}, {}
        for place, file in chosen.items():
            if owners[file] > 1:
                others = sorted(p for p, f in chosen.items() if f == file and p != place)
                reasons[place] = (
                    f"{file} could be the caption of {place} or of {others[0]}: name it by the "
                    f"image's whole name, such as {place}{os.path.splitext(file)[1]}"
                )
            elif (problem := read[file].problem) is not None:
                reasons[place] = problem
            else:
                captions[place] = [composed(text) for text in read[file].captions]
        usable, unusable = without_spoiled(found, reasons)
        places = usable["place"].to_list()
        listed = [captions.get(place, []) for place in places]
        wordless = [place for place, several in zip(places, listed, strict=True) if not several]
        warnings = [*self._said_of(wordless, len(places), read)]
        further = sorted({file for files in beside.values() for file in files} - set(owners))
        if further:
            warnings.append(
                f"{len(further)} files beside images in {self.root} are not read, since another "
                f"text of their name counts: {shortlist(further)}"
            )
        usable = usable.with_columns(pl.Series("captions", listed, pl.List(pl.String)))
        return Captioned(usable, unusable, tuple(warnings), frozenset({*owners, *further}))

    def _read_all(self, files: Sequence[str]) -> list[Read]:
        """In tasks of many files, so that millions fit in memory."""
        tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
        with ThreadPoolExecutor() as threads:
            return [read for task in threads.map(self._read_task, tasks) for read in task]

    def _read_task(self, files: Sequence[str]) -> list[Read]:
        return [self.read(file) for file in files]

    def read(self, file: str) -> Read:
        """What the file at that place below `root` holds."""
        path = self.root / file
        try:
            size = path.stat().st_size
            if size > LARGEST_TEXT:
                said = f"{file} has {size:,} bytes, more than {LARGEST_TEXT:,}: it is no caption"
                return Read(problem=said)
            data = path.read_bytes()
        except OSError as error:
            return Read(problem=said_of(error, path))
        encoding = encoding_of(data, self.form)
        try:
            text = data.decode(encoding)
        except UnicodeError as error:
            return Read(problem=_undecodable(file, data, encoding, error))
        if os.path.splitext(file)[1].lower() == ABOUT:
            return self._of_json(file, text)
        lines = [line.strip() for line in LINE_END.split(text) if line.strip()]
        if self.lines == "whole":
            return Read((text.strip(),) if lines else (), lines=len(lines))
        chosen = lines if self.lines == "each" else lines[:1]
        return Read(tuple(chosen), lines=len(lines))

    def _of_json(self, file: str, text: str) -> Read:
        try:
            value: Any = read_json(text)
        except ValueError as error:
            return Read(problem=f"{file} is not JSON: {error}")
        key, what = self.form.column("caption"), file
        if isinstance(value, dict):
            if key not in value:
                return Read(keys=tuple(value))
            value, what = value[key], f"{key!r} in {file}"
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) for text in texts):
            return Read(problem=f"{what} must be text or a list of texts, not {value!r:.60}")
        if not all(map(is_text, texts)):
            return Read(problem=f"{what} has half a character (a lone surrogate)")
        return Read(tuple(text.strip() for text in texts if text.strip()))

    def _check_lines(self, read: Mapping[str, Read]) -> None:
        several = [file for file, found in read.items() if found.lines > 1]
        if several and self.lines is None:
            raise DataError(
                f"{len(several)} of {len(read)} captions in {self.root} have several lines: "
                f"{shortlist(several)}; declare which of them are captions (`caption_lines: "
                "first`, `each`, or `whole` for all lines as one)"
            )

    def _said_of(
        self, wordless: Sequence[str], count: int, read: Mapping[str, Read]
    ) -> Iterator[str]:
        keyless = {file: found.keys for file, found in read.items() if found.keys}
        hint = ""
        if keyless:
            key, (file, keys) = self.form.column("caption"), next(iter(keyless.items()))
            hint = (
                f"; {len(keyless)} JSONs have no {key!r}, such as {file}, whose keys are "
                f"{shortlist(keys)}: `columns: {{caption: …}}` names the one that is meant"
            )
        if wordless and len(wordless) == count:
            stem = os.path.splitext(wordless[0])[0]
            raise DataError(
                f"no image in {self.root} has a caption beside it: expected {stem}.txt, "
                f"{stem}.caption or {stem}.json for {wordless[0]}{hint}"
            )
        if wordless:
            yield (
                f"{len(wordless)} of {count} images in {self.root} have no caption beside them and "
                f"train on the prompt: {shortlist(wordless)}{hint}"
            )


def texts_beside(places: Sequence[str], unused: Sequence[Unused]) -> dict[str, list[str]]:
    """Image → the files that could hold its captions, the one that counts first; none without one.

    places: of the images, composed. unused: the files that are no images.
    """
    rank = {extension: number for number, extension in enumerate((*TEXTS, ABOUT))}
    by_stem: dict[str, list[str]] = {}
    for file in unused:
        stem, extension = os.path.splitext(file.place)
        if extension.lower() in rank and file.reason.startswith(NO_IMAGE):
            by_stem.setdefault(composed(stem), []).append(file.place)
    for several in by_stem.values():
        several.sort(key=lambda file: rank[os.path.splitext(file)[1].lower()])
    found = {}
    for place in places if by_stem else ():
        files = by_stem.get(place, []) + by_stem.get(os.path.splitext(place)[0], [])
        if files:
            found[place] = files
    return found


def _undecodable(file: str, data: bytes, encoding: str, error: UnicodeError) -> str:
    where = file
    if isinstance(error, UnicodeDecodeError) and encoding.startswith("utf-8"):
        line = data[: error.start].count(b"\n") + 1
        where = f"line {line} of {file}"
    return f"{where} is not {encoding}: declare its `encoding`, such as cp1252 or utf-16"
