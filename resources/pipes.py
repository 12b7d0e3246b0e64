"""Dagster Pipes between a step and the processes that it launches."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast

import dagster as dg
from dagster_pipes import PipesMessage, PipesParams

from fomo_dagster.progress import Callbacks

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class PipesChannel:
    """Lets launched processes report to a step: lines of its log, progress, warnings, the steps of
    a training.

    Messages pass through two files of the launch's folder, so any machine that shares it can take
    part.
    """

    context: Any

    @contextmanager
    def __call__(self, folder: Path, callbacks: Callbacks) -> Iterator[Mapping[str, str]]:
        """The variables that a launched process finds it by; open within."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of its own
            with dg.open_pipes_session(
                context=self.context,
                context_injector=dg.PipesFileContextInjector(str(folder / "pipes_context")),
                message_reader=_Messages(str(folder / "pipes_messages"), callbacks),
            ) as session:
                yield session.get_bootstrap_env_vars()


class _Messages(dg.PipesFileMessageReader):
    """Takes what is not for Dagster out of what comes, the moment it comes.

    Dagster's own reader takes what is there of a line for a line. On a shared file system one may
    come in pieces: this one waits for its end.
    """

    def __init__(self, path: str, callbacks: Callbacks) -> None:
        super().__init__(path)
        self._callbacks = callbacks

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        taking = _Taking(handler, self._callbacks)
        with super().read_messages(cast(dg.PipesMessageHandler, taking)) as params:
            yield params

    def _reader_thread(self, handler: dg.PipesMessageHandler, is_resource_complete: Event) -> None:
        try:
            for line in whole_lines(Path(self._path), is_resource_complete):
                handler.handle_message(json.loads(line))
        except Exception:
            handler.report_pipes_framework_exception(type(self).__name__, sys.exc_info())
            raise


def whole_lines(path: Path, is_over: Event) -> Iterator[bytes]:
    """The lines of a file that others write, as they come. An incomplete last line is left out.

    is_over: set once nothing more is written.
    """
    begun = b""
    with path.open("rb") as file:
        while True:
            ends = is_over.is_set()  # asked first: what is written before the end is read
            piece = file.readline()
            begun += piece
            if begun.endswith(b"\n"):
                yield begun
                begun = b""
            elif not piece and ends:
                return
            elif not piece:
                is_over.wait(SECONDS_BETWEEN_LOOKS)


@dataclass(frozen=True)
class _Taking:
    handler: dg.PipesMessageHandler
    callbacks: Callbacks

    def handle_message(self, message: PipesMessage) -> None:
        params = message.get("params") or {}
        payload = params.get("payload") if message["method"] == "report_custom_message" else None
        match payload:
            case {"progress": [what, done, total, detail]}:
                self.callbacks.progress(what, done, total, detail)
            case {"warning": text}:
                self.callbacks.warn(text)
            case {"steps": [asset, digest, rows]}:
                self.callbacks.steps(asset, digest, rows)
            case _:
                self.handler.handle_message(message)

    def report_pipes_framework_exception(self, origin: str, exc_info: Any) -> None:
        self.handler.report_pipes_framework_exception(origin, exc_info)
