"""`fomo fetch`: the benchmark's archives, with bars, and a word about each."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from fomo_dagster.cli.interruptions import Signals
from fomo_dagster.cli.output import printable, say
from fomo_dagster.data.benchmark.downloads import Archive, fetch, read_list
from fomo_dagster.data.benchmark.registry import BenchmarkDataset, benchmark_datasets, find
from fomo_dagster.data.benchmark.release import Release
from fomo_dagster.errors import DataError, InputError, StoppedError, nearest
from fomo_dagster.units import byte_size

LIST_FILE = "download_data.csv"


class DownloadBars:
    """A bar a download, in bytes a second; see `fomo_dagster.progress`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> DownloadBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        known = total or None
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(printable(what), total=known, detail=detail)
        self._progress.update(self._tasks[what], completed=done, total=known, detail=detail)

    def finished(self, what: str) -> None:
        if what in self._tasks:
            self._progress.remove_task(self._tasks.pop(what))


def fetch_datasets(names: Sequence[str], *, everything: bool, console: Console) -> None:
    """Download what is not there of the datasets named, or of all.

    An archive that is not what it should be does not keep the others from coming: the command goes
    on and fails at its end. Raises `InputError` at once where a name, the list or the network will
    not do, and `StoppedError` on SIGINT, SIGTERM and SIGHUP.
    """
    if everything == bool(names):
        raise InputError("name the datasets to download, or give --all for every one")
    datasets = list(benchmark_datasets().values()) if everything else [find(n) for n in names]
    release = Release.locate(None, None)
    archives = _archives(datasets, release.root / LIST_FILE)
    failed: list[str] = []
    with Signals() as signals, DownloadBars(console) as bars:
        try:
            for dataset, archive in zip(datasets, archives, strict=True):
                try:
                    _fetch_one(dataset, archive, release.images, bars, console)
                except DataError as error:
                    failed.append(f"{dataset.name}: {error}")
        except KeyboardInterrupt as error:
            number = signals.received or signal.SIGINT
            message = f"stopped by {number.name}; the same command goes on from here"
            raise StoppedError(number, message) from error
    if failed:
        raise DataError("\n".join(failed))


def _archives(datasets: Sequence[BenchmarkDataset], path: Path) -> list[Archive]:
    listed = read_list(path)
    for dataset in datasets:
        if dataset.folder not in listed:
            raise InputError(
                f"{path} has no address for {dataset.folder} ({dataset.name}); "
                + nearest(dataset.folder, listed)
            )
    return [listed[dataset.folder] for dataset in datasets]


def _fetch_one(
    dataset: BenchmarkDataset,
    archive: Archive,
    folder: Path,
    bars: DownloadBars,
    console: Console,
) -> None:
    if (folder / dataset.folder).is_dir():
        told = f"there, extracted in {folder / dataset.folder}"
    else:
        fetched = fetch(archive, folder, bars)
        word = "downloaded" if fetched.downloaded else "there"
        told = f"{word}, {byte_size(fetched.size)} in {fetched.path}"
    bars.finished(archive.name)
    say(console, "  ", (f"{dataset.name:20}", "green"), f" {told}")
