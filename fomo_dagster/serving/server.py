"""Runs a server until it is asked to stop, and then until all that it accepted is answered."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from fomo_dagster.errors import FomoError, StoppedError
from fomo_dagster.serving.app import create_app
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.limits import Limits
from fomo_dagster.serving.loading import Loader
from fomo_dagster.serving.releases import ServedReleases

_MORE_SECONDS = 5  # than a request may take, for what is under way at the end


class _Server(uvicorn.Server):
    """Tells at which port it listens, and notes by which signal it was stopped."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        self.received: signal.Signals | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start(self.servers[0].sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(sig)
        super().handle_exit(sig, frame)


def serve(
    loader: Loader, releases: ServedReleases, counters: Counters, *, host: str, port: int,
    limits: Limits, hosts: frozenset[str] | None, on_start: Callable[[int], None],
) -> None:  # fmt: skip
    """Answer at `host`:`port` until SIGTERM or SIGINT, which must raise `KeyboardInterrupt`.
    on_start is told the port, which the system chooses for 0.

    Raises `StoppedError` at the end; `FomoError` where the server could not start.
    """
    app = create_app(loader, releases, counters, limits=limits, hosts=hosts)
    config = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, lifespan="on",
        timeout_graceful_shutdown=int(limits.seconds) + _MORE_SECONDS, server_header=False,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config, on_start)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again as it ends
        server.run()
    if server.received is None:
        raise FomoError("the server could not start: what it said before tells why")
    ended = "asked twice" if server.force_exit else "all that was accepted is answered"
    raise StoppedError(server.received, f"stopped by {server.received.name}; {ended}")
