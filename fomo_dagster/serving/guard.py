"""What stands before all endpoints: limits of size, time and number, and what is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.limits import Admission, Limits, RequestError
from fomo_dagster.units import byte_size

ALWAYS = ("/healthz", "/readyz", "/metrics")  # answered however much is under way
_RETRY_SECONDS = "1"


def error_answer(status: int, message: str) -> JSONResponse:
    """An error, as all of them look."""
    headers = {"Retry-After": _RETRY_SECONDS} if status == 503 else None
    return JSONResponse({"error": message}, status, headers=headers)


class Guard:
    """Admits requests to an app.

    hosts: the names that browsers may call this server by; None: any. Without it, a page of any
    site could point its own name at this machine, and read what only this machine should.
    paths: those with a label of their own among what is counted.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, admission: Admission, counters: Counters,
        hosts: frozenset[str] | None, paths: frozenset[str],
    ) -> None:  # fmt: skip
        self._app, self._limits, self._admission = app, limits, admission
        self._counters, self._hosts, self._paths = counters, hosts, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, answer = time.monotonic(), _Answer(send)
        try:
            await self._admit(scope, receive, answer)
        except RequestError as error:
            if answer.status is not None:
                raise
            await error_answer(error.status, str(error))(scope, receive, answer.send)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counters.requests.labels(path, str(answer.status or 500)).inc()
            self._counters.request_seconds.labels(path).observe(time.monotonic() - started)

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        if scope["path"] in ALWAYS:
            await self._app(scope, receive, answer.send)
            return
        self._check_size(int(length) if (length := headers.get("content-length")) else 0)
        with ExitStack() as held:
            held.enter_context(self._admission.request())
            body = _Body(receive, self._check_size, self._admission, held)
            try:
                async with asyncio.timeout(self._limits.seconds) as limit:
                    await self._app(scope, body.receive, answer.send)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise RequestError(
                    504, f"there was no answer within {self._limits.seconds:g} s: send less at "
                    "once, or try again when less is under way",
                ) from error  # fmt: skip

    def _check_host(self, headers: Headers) -> None:
        named = headers.get("host", "").lower()
        host = named.rpartition(":")[0] if not named.endswith("]") and ":" in named else named
        if self._hosts is not None and host not in self._hosts:
            raise RequestError(
                421, f"this server answers to {', '.join(sorted(self._hosts))}, and not to {host!r}"
            )

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise RequestError(
                413, f"a body of {byte_size(size)} or more is too large: at most "
                f"{byte_size(self._limits.body_bytes)}",
            )  # fmt: skip


class _Answer:
    """Notes the status of what is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Send a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _Body:
    """Counts what is received as it comes: an announced length may be wrong, or missing."""

    def __init__(
        self,
        receive: Receive,
        check_size: Callable[[int], None],
        admission: Admission,
        held: ExitStack,
    ) -> None:
        self._receive, self._check_size = receive, check_size
        self._admission, self._held, self._size = admission, held, 0

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        if size := len(message.get("body", b"")):
            self._size += size
            self._check_size(self._size)
            self._held.enter_context(self._admission.holding(size))
        return message
