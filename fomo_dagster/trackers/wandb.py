"""Weights & Biases: a run of a project there.

WANDB_MODE: `offline` by default, which writes what `wandb sync` sends later. WANDB_PROJECT: `fomo`
by default. WANDB_DIR: where `wandb/` is, `trackers` in FOMO_HOME by default. WANDB_ENTITY and the
others mean what they always do. What wandb would gather by itself (console output, code, git, the
machine, its use) is left out; its reports of errors are off unless WANDB_ERROR_REPORTING says
otherwise.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from fomo_dagster.trackers.tracker import Point, Run

_SENDING = ("online", "run", "shared")
_MODES = ("offline", "online", "disabled", "dryrun", "run", "shared")
# A server that is away is to be heard of, and not to be waited for when the process ends.
_SECONDS_TO_BEGIN = _SECONDS_TO_FINISH = 20.0
# wandb's process keeps what it is told for so long, 15 s if it were left to it, and loses it where
# this one is killed.
_SECONDS_UNWRITTEN = 0.1


class WeightsAndBiases:
    """Logs to wandb's own process, which writes to the disk or sends to a server."""

    def __init__(self, folder: Path) -> None:
        mode = os.environ.get("WANDB_MODE") or "offline"
        named = os.environ.get("WANDB_DIR")
        root = Path(named).expanduser().resolve() if named else folder
        root.mkdir(parents=True, exist_ok=True)
        self._project = os.environ.get("WANDB_PROJECT") or "fomo"
        if mode not in _MODES:
            raise ValueError(f"WANDB_MODE is {mode!r}, and may be {', '.join(_MODES)}")
        self._settings = wandb.Settings(
            mode=mode,
            root_dir=str(root),
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            init_timeout=_seconds("WANDB_INIT_TIMEOUT", _SECONDS_TO_BEGIN),
            finish_timeout=_SECONDS_TO_FINISH,
            x_transaction_log_flush_interval=_SECONDS_UNWRITTEN,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        place = [mode, os.environ.get("WANDB_BASE_URL", ""), os.environ.get("WANDB_ENTITY", "")]
        self._destination = " ".join([*place, self._project, str(root)])
        server = os.environ.get("WANDB_BASE_URL") or "wandb's server"
        self._place = server if mode in _SENDING else str(root / "wandb")

    @property
    def destination(self) -> str:
        return self._destination

    @property
    def place(self) -> str:
        return self._place

    def open(self, run: Run, earlier: str | None, sent: int) -> _Logging:
        opened = wandb.init(
            project=self._project,
            name=run.name,
            id=earlier or uuid.uuid4().hex[:16],
            resume="allow",
            reinit="create_new",
            config=dict(run.configuration) if earlier is None else None,
            settings=self._settings,
        )
        return _Logging(opened, sent)


class _Logging:
    """Each section, the first part of a series' name, has its own steps: wandb's count of what was
    logged only ever goes on, and stages may be trained in any order."""

    def __init__(self, run: Any, sent: int) -> None:
        self._run, self.id, self._logged = run, run.id, sent
        self._sections: set[str] = set()

    def log(self, points: Sequence[Point], parameters: Mapping[str, str]) -> None:
        for (section, step), group in groupby(points, key=_place):
            axis = f"{section}/step"
            if section not in self._sections:
                self._sections.add(section)
                self._run.define_metric(axis, hidden=True)
                self._run.define_metric(f"{section}/*", step_metric=axis)
            together = list(group)
            values = {point.series: point.value for point in together}
            self._run.log({axis: step, **values}, step=self._logged, commit=True)
            self._logged += len(together)
        if parameters:
            self._run.config.update(dict(parameters), allow_val_change=True)
        time.sleep(3 * _SECONDS_UNWRITTEN)

    def close(self) -> None:
        self._run.finish()


def _seconds(variable: str, default: float) -> float:
    value = os.environ.get(variable)
    try:
        return float(value) if value else default
    except ValueError as error:
        raise ValueError(f"{variable} is {value!r}, and must be a number of seconds") from error


def _place(point: Point) -> tuple[str, int]:
    return point.series.partition("/")[0], point.step
