"""`fomo datasets`: what there is, what of it is on this machine, and everything about one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fomo_dagster.cli.output import cell, line, say
from fomo_dagster.data.benchmark.registry import BenchmarkDataset, by_any_name
from fomo_dagster.data.benchmark.release import RELEASE_VARIABLE
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.presence import Presence, differences
from fomo_dagster.data.sources.release.source import FomoReleaseSource
from fomo_dagster.errors import FomoError, InputError, nearest
from fomo_dagster.experiment.benchmark import benchmark_declarations, of_benchmark
from fomo_dagster.experiment.declared_datasets import load_datasets, shipped_datasets
from fomo_dagster.experiment.experiment_sets import load_all
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.home import Home

LONGEST_NOTE = 12  # in characters, of those that stand in the table: it should fit 80 columns
STYLES = {"present": "green", "on demand": "green", "incomplete": "yellow", "missing": "dim"}


@dataclass(frozen=True)
class Known:
    """A dataset that experiments can name.

    benchmark: what the benchmark says of it, where it is one of the benchmark's. counts: the
    samples of its shards by split, its concepts, and its images that are as in `ODD`; None before
    it has any. is_shipped: whether it comes with the package, and the project declares none of its
    name.
    """

    name: str
    dataset: Dataset
    base: Path
    benchmark: BenchmarkDataset | None
    presence: Presence
    counts: Mapping[str, int] | None
    is_shipped: bool = False

    @property
    def is_declared(self) -> bool:
        """Whether the project declares it, rather than the benchmark."""
        return self.benchmark is None or not isinstance(self.dataset.source, FomoReleaseSource)

    @property
    def note(self) -> str:
        """What a person should know of it in a few words."""
        if self.counts is None or self.benchmark is None or self.is_declared:
            return self.presence.note
        return self.presence.note or differences(self.benchmark, self.counts)

    def as_data(self) -> dict[str, Any]:
        """Everything, as JSON data."""
        expected = None
        if self.benchmark is not None:
            expected = {"concepts": self.benchmark.classes, "train": self.benchmark.train,
                        "test": self.benchmark.test}  # fmt: skip
        return {
            "name": self.name,
            "state": self.presence.state,
            "place": self.presence.place,
            "note": self.note,
            "sharded": self.counts,
            "expected": expected,
            "role": self.benchmark.role if self.benchmark else None,
            "folder": self.benchmark.folder if self.benchmark else None,
            "year": self.benchmark.year if self.benchmark else None,
            "released_place": self.benchmark.released_place if self.benchmark else None,
            "published_zero_shot": self.benchmark.zero_shot if self.benchmark else None,
            **self.dataset.model_dump(mode="json", exclude_defaults=True),
            "task": self.dataset.task,
            "source": {
                "type": self.dataset.source.type,
                **self.dataset.source.model_dump(mode="json", exclude_defaults=True),
            },
        }


def known_datasets(project: Path, home: Home) -> dict[str, Known]:
    """All datasets: those that the project and its experiments declare, then the shipped ones, then
    the benchmark's; none whose declaration is wrong."""
    everything = load_all(project)
    datasets, bases = dict(everything.datasets.declared), dict(everything.datasets.bases)
    for loaded in everything.experiments:
        for name in loaded.experiment.datasets:
            datasets.setdefault(name, loaded.datasets[name])
            bases.setdefault(name, loaded.bases[name])
    declared = dict(sorted(datasets.items()))
    taken = {*declared, *everything.datasets.wrong}
    shipped = {n: one for n, one in shipped_datasets().declared.items() if n not in taken}
    bases = {**shipped_datasets().bases, **bases}
    known = {
        name: _known(name, dataset, bases.get(name, project), home)
        for name, dataset in {**declared, **shipped, **_others({*taken, *shipped})}.items()
    }
    return {name: replace(one, is_shipped=name in shipped) for name, one in known.items()}


def looked_through(one: Known, home: Home) -> Known:
    """`one`, where it is the benchmark's, with its images' names held against its info files.

    A tar's list of names is read the first time, and kept until the tar changes.
    """
    source = one.dataset.source
    if one.presence.state != "present" or not isinstance(source, FomoReleaseSource):
        return one
    try:
        different = "; ".join(source.open(one.name, one.base, home.cache).differences())
    except FomoError as error:
        different = str(error)
    if not different:
        return one
    return replace(one, presence=replace(one.presence, state="incomplete", note=different))


def _others(declared: Iterable[str]) -> dict[str, Dataset]:
    """The benchmark's datasets that no declaration takes the place of."""
    taken = set(declared)
    return {n: dataset for n, dataset in benchmark_declarations().items() if n not in taken}


def _known(name: str, dataset: Dataset, base: Path, home: Home) -> Known:
    head = home.heads.look(shards_key(name))
    counts = None
    if head is not None:
        counts = {
            "concepts": len(head.facts["concepts"]),
            "train": sum(head.facts["train_samples"].values()),
            "test": head.facts["test_samples"],
            "unreadable": len(head.facts["quarantined"]),
            **{name: count for name, count in head.facts.get("counts", {}).items() if count},
        }
    benchmark = of_benchmark(name, dataset)
    return Known(name, dataset, base, benchmark, dataset.source.presence(name, base), counts)


def print_datasets(known: Iterable[Known], console: Console) -> None:
    """The project's datasets, the shipped ones and the benchmark's, a line each that fits 80
    columns, and below them what there is to say of some."""
    everything = list(known)
    own = [one for one in everything if one.is_declared and not one.is_shipped]
    shipped = [one for one in everything if one.is_shipped]
    others = [one for one in everything if not one.is_declared]
    for title, rows in (("Declared here", own), ("Shipped", shipped), ("FoMo-in-Flux", others)):
        if not rows:
            continue
        table = Table(
            title=title, title_justify="left", title_style="bold", header_style="bold", box=None,
            pad_edge=False, collapse_padding=True,
        )  # fmt: skip
        table.add_column("dataset", no_wrap=True)
        table.add_column("role" if rows is others else "source", no_wrap=True)
        for column in ("concepts", "train", "test"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("images", no_wrap=True)
        table.add_column("", no_wrap=True)
        for one in rows:
            table.add_row(*_cells(one))
        console.print(table)
        for one in rows:
            if len(one.note) > LONGEST_NOTE:
                say(console, f"  {one.name}: {one.note}")
    states = [one.presence.state for one in everything]
    counted = ", ".join(f"{states.count(s)} {s}" for s in STYLES if s in states)
    console.print(
        line(f"\n{counted}. In brackets: what the benchmark says, before there are shards.")
    )
    for sentence in dict.fromkeys(filter(None, map(way_to_images, others))):
        say(console, sentence)


def way_to_images(one: Known) -> str:
    """What makes the images of a dataset of the benchmark come here, where they are missing; empty
    otherwise. Of all that lack them for one reason, it is one sentence."""
    source = one.dataset.source
    if one.presence.state != "missing" or not isinstance(source, FomoReleaseSource):
        return ""
    if source.release is None and not os.environ.get(RELEASE_VARIABLE):
        return f"Set {RELEASE_VARIABLE} to a copy of the benchmark's release to use its datasets."
    try:
        source.located(one.base)
    except InputError as error:
        return f"{error}."
    return "`fomo fetch NAME` downloads what is missing of FoMo-in-Flux."


def _cells(one: Known) -> list[Text]:
    role: str = one.dataset.source.type
    if one.benchmark is not None and not one.is_declared:
        role = one.benchmark.role.replace("_", " ")
    numbers = ["", "", ""]
    if one.counts is not None:
        numbers = [f"{one.counts[key]:,}" for key in ("concepts", "train", "test")]
    elif one.benchmark is not None:
        expected = (one.benchmark.classes, one.benchmark.train, one.benchmark.test)
        numbers = [f"({number:,})" if number else "" for number in expected]
    state = one.presence.state
    note = one.note if len(one.note) <= LONGEST_NOTE else ""
    told = [cell(value) for value in (one.name, role, *numbers)]
    return [*told, Text(state, STYLES[state]), cell(note)]


def find_known(name: str, known: Mapping[str, Known], project: Path) -> Known:
    """The dataset of that name; one of the benchmark's by any of its names."""
    wrong = load_datasets(project).wrong
    if name in wrong:
        raise InputError(wrong[name])
    if name in known:
        return known[name]
    of_benchmark = by_any_name().get(name)
    if of_benchmark is not None and of_benchmark.name in known:
        return known[of_benchmark.name]
    raise InputError(f"there is no dataset {name!r}; " + nearest(name, [*known, *by_any_name()]))
