"""What a person sees while a run or a plan goes on: a line an asset, and bars of the work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fomo_dagster.cli.output import printable, say
from fomo_dagster.store.heads import Head


class Bars:
    """Bars of the assets and of the work within one; without a terminal, the lines alone.

    assets: how many there are to be; 0 where none is made, as in a plan.
    """

    def __init__(self, console: Console, assets: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # it would end with an empty line
        )
        self._assets = self._progress.add_task(
            "assets", total=assets, detail="", visible=assets > 0
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Progress within an asset; see `fomo_dagster.progress`."""
        detail = printable(detail)
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(printable(what), total=total, detail=detail)
        self._progress.update(self._tasks[what], completed=done, total=total, detail=detail)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def waiting(self, what: str) -> None:
        """Others have what this process needs."""
        self._say(f"  waiting for {what}")

    def finished(self, head: Head, seconds: float) -> None:
        """An asset was materialised, which took so long."""
        colour = "yellow" if head.status == "computed" else "green"
        self._say("  ", (f"{head.status:8}", colour), f" {head.asset:36} {seconds:7.1f} s")
        self._progress.advance(self._assets)

    def warn(self, warning: str) -> None:
        """Something that a person should hear."""
        self._say("  ", ("warning", "yellow"), f"  {warning}")

    def _say(self, *parts: str | tuple[str, str]) -> None:
        say(self._progress.console, *parts)
