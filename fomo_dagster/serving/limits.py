"""What a server takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fomo_dagster.units import byte_size


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one request, and of all together.

    body_bytes: as sent. pixels: of an image, before and after it is resized. texts: of a request; a
    classification has one for each class and template. characters: of a text. seconds: from a
    request's first byte to its answer. requests: under way at once. held_bytes: of their bodies
    and of what is made of them, all together.
    """

    body_bytes: int = 32 * 2**20
    images: int = 64
    pixels: int = 50_000_000
    texts: int = 4096
    characters: int = 2000
    seconds: float = 10.0
    requests: int = 256
    held_bytes: int = 512 * 2**20


class RequestError(Exception):
    """Why a request is not answered, as people read it. status: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Admission:
    """How much is under way: requests, and bytes that they hold. For one thread, that of the event
    loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.held_bytes = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request that is under way. Raises `RequestError` where too many are."""
        if self.requests >= self._limits.requests:
            raise RequestError(
                503, f"{self.requests} requests are under way, the most at once: try again later"
            )
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Bytes that are held. Raises `RequestError` where they are too many with the others', or
        by themselves."""
        most = self._limits.held_bytes
        if size > most:
            raise RequestError(
                413,
                f"this takes {byte_size(size)}, and all requests together may take "
                f"{byte_size(most)}: send fewer images or texts at once",
            )
        if self.held_bytes + size > most:
            raise RequestError(
                503, f"requests under way hold {byte_size(self.held_bytes)}: try again later"
            )
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size
