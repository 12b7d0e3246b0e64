"""What an experiment's declaration says about its stream: concepts, years, arrivals, roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fomo_dagster.data.dataset import Dataset, DatasetSettings
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.data.sources.manifest import ManifestSource
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.benchmark import of_benchmark
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.nodes.order import Listing
from fomo_dagster.graph.nodes.validation import view_of, viewed_by
from fomo_dagster.streams.entries import canonical_entry, format_entry, parse_entry, read_entries
from fomo_dagster.streams.growing import arrived_datasets


def with_stream_read(loaded: Loaded) -> Loaded:
    """With what its stream says outside the experiment's file: the entries of a list, a dataset for
    everything that has arrived. What was read once stays, so that a graph can be built again."""
    stream = loaded.experiment.stream
    if stream.growing is not None and loaded.arrived is None:
        return with_arrivals(loaded, loaded.base / stream.growing.expanduser())
    if stream.file is not None and loaded.entries is None:
        written = read_entries(loaded.base / stream.file.expanduser())
        declared = {*loaded.datasets, *loaded.wrong}
        entries = tuple(canonical_entry(entry, declared) for entry in written)
        return replace(loaded, entries=entries)
    return loaded


def with_arrivals(loaded: Loaded, folder: Path) -> Loaded:
    """With a dataset for everything that has arrived of a growing stream."""
    stream = loaded.experiment.stream
    datasets, bases = dict(loaded.datasets), dict(loaded.bases)
    arrived = arrived_datasets(stream.name or loaded.experiment.name, folder)
    settings = {k: v for k, v in stream.arriving if k in DatasetSettings.model_fields}
    of_source = {k: v for k, v in stream.arriving if k not in settings}
    for name, path in arrived.items():
        if name in datasets or name in loaded.wrong:
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {path} would be the dataset {name!r}, "
                "which is declared: rename one of the two"
            )
        try:
            check_safe_name(name)
        except ValueError as error:
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {path} would be the dataset {name!r}, and "
                f"{error}: rename what arrived"
            ) from error
        kind = FolderSource if path.is_dir() else ManifestSource
        fitting = {k: v for k, v in of_source.items() if k in kind.model_fields}
        if kind is FolderSource:  # a folder says by itself what its classes and splits are
            columns = {**stream.arriving.columns}
            fitting["columns"] = {k: columns[k] for k in ("path", "caption") if k in columns}
        source = kind(path=path, **fitting)
        datasets[name] = Dataset(source=source, **settings)
        bases[name] = loaded.base
    return replace(loaded, datasets=datasets, bases=bases, arrived=tuple(arrived))


def first_evaluated(experiment: Experiment, arrived: Sequence[str]) -> dict[str, int]:
    """Dataset → the first stage that is evaluated on it, if that is not stage 0.

    So that arrivals change no earlier stage, a stage of a growing stream is evaluated on the
    datasets that had arrived by then, unless the experiment names its adaptation datasets.
    """
    if experiment.evaluation.adaptation is not None:
        return {}
    if experiment.stream.growing is not None and not experiment.evaluation.held_out:
        raise InputError(
            f"experiment {experiment.name!r}: before anything of a growing stream arrives, there "
            "is nothing to evaluate θ₀ on: name datasets in evaluation.held_out or .adaptation"
        )
    return {name: stage for stage, name in enumerate(arrived, start=1)}


def viewed(experiment: Experiment) -> Callable[[str], str]:
    """From a dataset's declared name to the name of what the experiment uses of it."""
    validation = experiment.validation
    return str if validation is None else lambda dataset: view_of(dataset, validation)


def listing_of(loaded: Loaded) -> Listing:
    """The stream's datasets, and its entries where the experiment or a file lists them.

    loaded: as of `with_stream_read`.
    """
    stream, name_of = loaded.experiment.stream, viewed(loaded.experiment)
    if stream.datasets is not None:
        return Listing(tuple(map(name_of, stream.datasets)))
    listed = loaded.entries if stream.file is not None else stream.concepts
    entries = [(name_of(dataset), concept) for dataset, concept in map(parse_entry, listed or ())]
    datasets = tuple(dict.fromkeys(dataset for dataset, _ in entries))
    return Listing(datasets, tuple(format_entry(*names) for names in entries))


def in_released_streams(experiment: Experiment, datasets: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Those of a stream's datasets that are in the benchmark's released streams."""
    validation = experiment.validation
    return tuple(
        name
        for name, dataset in datasets.items()
        if (known := of_benchmark(viewed_by(name, validation) if validation else name, dataset))
        and known.released_place is not None
    )


def years_of(experiment: Experiment, datasets: Mapping[str, Dataset]) -> dict[str, int]:
    """Dataset → year of publication, where the stream's order uses it."""
    if experiment.stream.order != "time_incremental":
        return {}
    undated = [name for name, dataset in datasets.items() if dataset.year is None]
    if undated:
        raise InputError(
            f"experiment {experiment.name!r}: the order time_incremental needs the year of every "
            f"dataset of the stream: declare `year` for {', '.join(undated)}"
        )
    return {name: dataset.year for name, dataset in datasets.items() if dataset.year is not None}


def roles_of(experiment: Experiment, trained_on: Sequence[str]) -> dict[str, str]:
    """Dataset → role, of every dataset that is evaluated."""
    evaluation, name_of = experiment.evaluation, viewed(experiment)
    named = trained_on if evaluation.adaptation is None else map(name_of, evaluation.adaptation)
    roles = dict.fromkeys(named, "adaptation")
    for name in map(name_of, evaluation.held_out):
        if name in roles or name in trained_on:
            raise InputError(
                f"experiment {experiment.name!r}: dataset {name!r} is both held out and "
                "adapted to: take it out of evaluation.held_out, or out of the stream"
            )
        roles[name] = "held_out"
    if not roles:
        raise InputError(
            f"experiment {experiment.name!r} has no dataset to evaluate on: name some in its "
            "stream, or in evaluation.held_out"
        )
    return roles
