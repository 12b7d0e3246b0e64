"""`fomo datasets show`: everything about one dataset, with a look at its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.datasets import Known, way_to_images
from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.data.benchmark.registry import BenchmarkDataset
from fomo_dagster.data.sources.source import Source, twins_said
from fomo_dagster.data.sources.webdataset.source import WebDatasetSource
from fomo_dagster.data.survey import Survey, survey
from fomo_dagster.errors import DataError, FomoError, StoreError
from fomo_dagster.evaluation.alike import alike_classes, said_of
from fomo_dagster.evaluation.foregone import foregone
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.nodes.shards import CONTACT_SHEET
from fomo_dagster.home import Home
from fomo_dagster.store.files import write_bytes

MOST_DECODED, SECONDS = 2000, 20.0  # of a look at images; of larger datasets a part is looked at
CLIP = "ViT-B-32"  # whose tokeniser is that of most architectures
ODD = {
    "unreadable": "unreadable",
    "transparent": "with transparency",
    "flat": "of one colour alone",
    "rescaled": "whose white was found from their values",
    "turned": "with orientation tags",
}  # what the shards tell of images, and how it is said


@dataclass(frozen=True)
class Content:
    """What there is to say of a dataset's content. survey: of its images, where they are here.
    error: why it cannot be read."""

    remarks: tuple[str, ...] = ()
    survey: Survey | None = None
    error: FomoError | None = None


def print_dataset(one: Known, home: Home, console: Console) -> None:
    """Everything about a dataset, and where its contact sheet is.

    Raises `FomoError` if its images cannot be read, or are not here and the project declares them,
    after all there is to say.
    """
    state = str(one.presence.state)
    lines = [
        ("", one.dataset.description),
        ("images", state + (f": {one.note}" if one.note else "")),
        ("", one.presence.place),
        ("", way_to_images(one)),
        ("task", one.dataset.task),
        ("prompt", one.dataset.prompt),
        ("domain", one.dataset.domain),
        ("licence", one.dataset.licence),
    ]
    if one.benchmark is not None:
        lines += _of_benchmark(one.benchmark)
    if one.counts is not None:
        odd = (f"{one.counts[k]:,} {said}" for k, said in ODD.items() if one.counts.get(k))
        lines += [("shards", _numbers(one.counts)), ("", ", ".join(odd))]
    source = one.as_data()["source"]
    lines.append(("source", yaml.safe_dump(source, default_flow_style=True, width=1000).strip()))
    say(console, (one.name, "bold"))
    for label, text in lines:
        if text:
            say(console, f"  {label:10} {text}")
    content = look_into(one, home)
    found = [] if content.survey is None else list(content.survey.sentences())
    for number, sentence in enumerate(found):
        say(console, f"  {'' if number else 'content':10} {sentence}")
    for remark in content.remarks:
        say(console, f"  {'note':10} {remark}")
    sheet = sheet_of_shards(one, home)
    if sheet is None and content.survey is not None and content.error is None:
        sheet = _sheet_of_source(one, content.survey, home, console)
    if sheet is not None:
        say(console, f"  {'picture':10} {sheet}")
    if content.error is not None:
        raise content.error


def look_into(one: Known, home: Home) -> Content:
    """A look at a dataset's images, what of its source is not read, classes that CLIP's tokeniser
    cannot tell apart in its own prompt, and a score that every model has. Empty if its samples are
    not here."""
    head = home.heads.look(shards_key(one.name))
    classes = [] if head is None else head.facts["concepts"]
    tests = 0 if head is None else head.facts["test_samples"]
    said: tuple[str, ...] = ()
    found, error = None, _nowhere(one)
    if _can_be_looked_at(one):
        try:
            source = _looked_at(one, home)
            with Bars(Terminal(stderr=True)) as bars:
                found = survey(
                    source, one.dataset.decoding, most=MOST_DECODED, seconds=SECONDS, progress=bars
                )
        except FomoError as refusal:
            return Content(error=refusal)
        classes, tests = found.classes, found.counts.get("test", 0)
        said = (*found.found.warnings, *twins_said(one.name, found.found))
        lost = _too_many_lost(one, found)
        if lost and found.is_whole:
            error = DataError(lost)
        elif lost:
            said = (*said, lost)
    if one.dataset.task == "classification":
        prompt, cache = one.dataset.prompt, home.cache / "alike"
        alike = alike_classes(sorted(classes), "dataset", prompt, CLIP, None, cache)
        said = (*said, said_of(one.name, alike)) if alike else said
    same = foregone(one.name, one.dataset.task, classes, tests)
    if same is not None and not (found is not None and found.found.is_part):
        said = (*said, same)
    return Content(said, found, error)


def _nowhere(one: Known) -> DataError | None:
    """What is not here of a dataset that the project declares. What it does not declare of the
    benchmark may well be elsewhere."""
    if one.presence.state != "missing" or not one.is_declared:
        return None
    return DataError(
        f"the images of dataset {one.name!r} are not here ({one.presence.note}): put them in "
        f"{one.presence.place}, or correct its `source`"
    )


def _too_many_lost(one: Known, found: Survey) -> str:
    """Why shards would be refused, as far as the look tells; empty if they would not."""
    limit = one.dataset.unreadable_limit
    if found.lost <= limit:
        return ""
    return (
        f"{found.lost:.1%} of the images of dataset {one.name!r} that were looked at cannot be "
        f"used, more than `unreadable_limit: {limit:g}` allows: repair or remove them, or raise it"
    )


def _can_be_looked_at(one: Known) -> bool:
    if one.dataset.source.access != "copied":
        return one.presence.state == "present" and isinstance(one.dataset.source, WebDatasetSource)
    return one.presence.state in ("present", "incomplete") or one.presence.note == "rendered"


def _looked_at(one: Known, home: Home) -> Source:
    """What reads its images; of tars, the first of them."""
    source = one.dataset.source
    if isinstance(source, WebDatasetSource):
        return source.first_tar(one.name, one.base)
    return one.dataset.open(one.name, one.base, home.cache)


def _of_benchmark(told: BenchmarkDataset) -> list[tuple[str, str]]:
    numbers = _numbers({"concepts": told.classes, "train": told.train, "test": told.test})
    place = f", place {told.released_place} in the released order of time"
    return [
        ("benchmark", f"{told.role.replace('_', ' ')}; {numbers}"),
        ("", f"of {told.year}{place if told.released_place else ''}"),
        ("", f"also {', '.join(told.names[1:])}; caption: {told.caption}"),
        ("zero-shot", f"{told.zero_shot} % published for ViT-B/32 (LAION-2B)"),
    ]


def _numbers(counts: Mapping[str, int | None]) -> str:
    """Such as "4 concepts, 16 train, 8 test"; without what is not there."""
    return ", ".join(
        f"{counts[key]:,} {key}" for key in ("concepts", "train", "test") if counts[key]
    )


def sheet_of_shards(one: Known, home: Home) -> Path | None:
    """The contact sheet of its shards; None before it has any."""
    head = home.heads.look(shards_key(one.name))
    artifact = None if head is None else home.store.open(*head.artifacts[ONLY])
    return None if artifact is None else artifact.record(CONTACT_SHEET)


def _sheet_of_source(one: Known, found: Survey, home: Home, console: Console) -> Path | None:
    """A contact sheet made of its source's samples; None if it cannot be kept."""
    from fomo_dagster.plots.dataset_sheet import dataset_sheet  # with matplotlib

    path = home.cache / "contact_sheets" / f"{one.name}.png"
    source = _looked_at(one, home)
    data = dataset_sheet(
        found.found.scan,
        lambda row: source.read(row["reference"]),
        one.name,
        one.dataset.decoding,
    )
    try:
        write_bytes(path, data)
    except StoreError as error:
        say(console, f"  {'picture':10} none: {error}")
        return None
    return path
