"""Dagster Pipes between a step and the processes that it launches."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster_pipes import PipesMessage, PipesParams

from fomo_dagster.progress import Progress


@dataclass(frozen=True)
class PipesChannel:
    """Lets launched processes tell a step what they do: lines of its log, progress, warnings.

    What passes goes through two files of the launch's folder, so that it works from any machine
    that shares it.
    """

    context: Any

    @contextmanager
    def __call__(
        self, folder: Path, progress: Progress, warn: Callable[[str], None]
    ) -> Iterator[Mapping[str, str]]:
        """The variables that a launched process finds it by; open within."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of its own
            with dg.open_pipes_session(
                context=self.context,
                context_injector=dg.PipesFileContextInjector(str(folder / "pipes_context")),
                message_reader=_Messages(str(folder / "pipes_messages"), progress, warn),
            ) as session:
                yield session.get_bootstrap_env_vars()


class _Messages(dg.PipesFileMessageReader):
    """Takes progress and warnings out of what comes, the moment it comes."""

    def __init__(self, path: str, progress: Progress, warn: Callable[[str], None]) -> None:
        super().__init__(path)
        self._progress, self._warn = progress, warn

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        taking = cast(dg.PipesMessageHandler, _Taking(handler, self._progress, self._warn))
        with super().read_messages(taking) as params:
            yield params


@dataclass(frozen=True)
class _Taking:
    handler: dg.PipesMessageHandler
    progress: Progress
    warn: Callable[[str], None]

    def handle_message(self, message: PipesMessage) -> None:
        params = message.get("params") or {}
        payload = params.get("payload") if message["method"] == "report_custom_message" else None
        match payload:
            case {"progress": [what, done, total, detail]}:
                self.progress(what, done, total, detail)
            case {"warning": text}:
                self.warn(text)
            case _:
                self.handler.handle_message(message)

    def report_pipes_framework_exception(self, origin: str, exc_info: Any) -> None:
        self.handler.report_pipes_framework_exception(origin, exc_info)
