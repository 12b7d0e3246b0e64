"""TensorBoard: a folder of event files for each run.

TENSORBOARD_LOGGING_DIR: the folder of them all, `trackers/tensorboard` in FOMO_HOME by default.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fomo_dagster.trackers.tracker import Point, Run, flat

_ID = "run_id.txt"  # so that a folder that was deleted and made again is another


class TensorBoard:
    """Writes event files."""

    def __init__(self, folder: Path) -> None:
        named = os.environ.get("TENSORBOARD_LOGGING_DIR")
        self._folder = Path(named).expanduser().resolve() if named else folder / "tensorboard"

    @property
    def destination(self) -> str:
        return str(self._folder)

    @property
    def place(self) -> str:
        return str(self._folder)

    def open(self, run: Run, earlier: str | None, sent: int) -> _Writing:
        return _Writing(self._folder / run.name, run)


class _Writing:
    def __init__(self, folder: Path, run: Run) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / _ID
        is_new = not there.exists()
        if is_new:
            there.write_text(uuid.uuid4().hex)
        self.id = there.read_text()
        self._writer = SummaryWriter(str(folder))
        if is_new:
            rows = [f"| {k} | {json.dumps(v)} |" for k, v in flat(run.configuration).items()]
            self._text("configuration", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log(self, points: Sequence[Point], parameters: Mapping[str, str]) -> None:
        for point in points:
            self._writer.add_scalar(point.series, point.value, point.step)
        for name, value in parameters.items():
            self._text(name, value)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)
