"""Which releases a server has in memory: the live one, and at most one beside it.

What is live is looked for in the log. A release that goes live is loaded and warmed beside the one
that answers, and then takes its place for whatever comes from then on. A request stays with the
release that it began with; the last such request lets go of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.releases.records import History
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.limits import RequestError
from fomo_dagster.serving.loaded import LoadedRelease
from fomo_dagster.serving.loading import Loader

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_UNTIL_AGAIN = 30.0  # after a release could not be loaded

logger = logging.getLogger(__name__)


class _Attempt(NamedTuple):
    number: int
    error: RequestError | None


class ServedReleases:
    """Those of one name. For one thread, that of the event loop, once it is made."""

    def __init__(self, loader: Loader, counters: Counters, beside: int | None = None) -> None:
        """Loads what is live, and the release `beside` it. Raises `FomoError` for one that cannot
        be served, `InputError` where nothing is live, or files are not there."""
        self._loader, self._counters = loader, counters
        self.history = loader.log.read()
        live = self.history.live
        if live is None:
            raise InputError(
                f"nothing is live as {loader.name!r}: put a stage live with `fomo promote`"
            )
        self.live = _loaded(loader, live, self.history)
        self.problem: str | None = None
        """Why what is live now does not answer yet; None where it does."""
        self._beside: LoadedRelease | None = None
        if beside is not None and beside != live:
            self._beside = _loaded(loader, beside, self.history)
        self._loading: asyncio.Task[_Attempt] | None = None
        self._under_way: dict[int, asyncio.Task[LoadedRelease | None]] = {}
        self._again_at: dict[int, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        counters.gauge(
            "fomo_live_release", "The number of the release that answers.",
            lambda: self.live.number,
        )  # fmt: skip
        counters.gauge(
            "fomo_rows_waiting", "Images and texts that are in no batch yet.", self._waiting
        )

    @asynccontextmanager
    async def use(self, number: int | None = None) -> AsyncIterator[LoadedRelease]:
        """A release, as long as it is needed: what is live, or another, which is loaded first if it
        is not there. Raises `RequestError` for one that cannot be had."""
        release = await self._found(number)
        release.users += 1  # nothing ran since it was found
        try:
            yield release
        finally:
            release.users -= 1
            self._close_unused(release)

    async def numbers(self) -> list[int]:
        """The releases that can be had."""
        history = self.history

        def there() -> list[int]:
            return [one for one in history.releases if self._loader.is_there(one, history)]

        return await asyncio.to_thread(there)

    @property
    def in_memory(self) -> frozenset[int]:
        """The releases that answer without being loaded."""
        return frozenset(one.number for one in (self.live, self._beside) if one is not None)

    def start_watching(self) -> None:
        """Follow what is live from now on."""
        self._watching = asyncio.create_task(self._watch())

    async def look(self) -> None:
        """Load what is live now, if another release answers, and let it take over."""
        try:
            self.history = await asyncio.to_thread(self._loader.log.read_after, self.history)
            await self._follow(self.history)
        except Exception as error:  # whatever happens, what was live goes on answering
            self._trouble(f"what is live cannot be told ({error})")
            if not isinstance(error, FomoError):
                logger.exception("looking for what is live failed")

    async def close(self) -> None:
        """Finish what was begun, and let go of all."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._loading is not None:
            await self._loading
        begun = await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        for release in (one for one in begun if isinstance(one, LoadedRelease)):
            await asyncio.to_thread(release.close)
        for release in filter(None, (self.live, self._beside)):
            await asyncio.to_thread(release.close)
        await asyncio.gather(*self._closing)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            await self.look()

    async def _follow(self, history: History) -> None:
        number = history.live
        if number is None or number == self.live.number:
            self.problem = None
            return
        if time.monotonic() < self._again_at.get(number, 0.0):
            return
        if self._beside is not None and self._beside.number == number:
            self._take_over(self._beside)
            return
        try:
            async with self._loaded_once(number, history) as loaded:
                if loaded is None:
                    self._trouble(_not_there(self._loader, number, history))
                else:
                    self._take_over(loaded)
        except Exception as error:
            self._again_at[number] = time.monotonic() + SECONDS_UNTIL_AGAIN
            self._counters.swaps.labels("failed").inc()
            self._trouble(f"release {number} is live and cannot be loaded ({error})")
            if not isinstance(error, FomoError):
                logger.exception("release %d cannot be loaded", number)

    def _take_over(self, loaded: LoadedRelease) -> None:
        """Have a release answer from now on."""
        if self._beside is loaded:
            self._beside = None
        before, self.live, self.problem = self.live, loaded, None
        self._counters.swaps.labels("swapped").inc()
        logger.info("release %d answers, after release %d", loaded.number, before.number)
        self._close_unused(before)

    @asynccontextmanager
    async def _loaded_once(
        self, number: int, history: History
    ) -> AsyncIterator[LoadedRelease | None]:
        """A release, loaded by whoever wanted it first. Its place must be given to it within: who
        comes later looks there."""
        if number not in self._under_way:
            load = asyncio.to_thread(self._loader.load, number, history)
            self._under_way[number] = asyncio.create_task(load)
        task = self._under_way[number]
        try:
            yield await asyncio.shield(task)
        finally:
            if task.done():
                self._under_way.pop(number, None)

    async def _found(self, number: int | None) -> LoadedRelease:
        while True:
            if number is None or number == self.live.number:
                return self.live
            if self._beside is not None and number == self._beside.number:
                return self._beside
            if self._loading is None:
                self._loading = asyncio.create_task(self._load(number))
            # It is loaded to the end, whoever has stopped waiting for it.
            attempt = await asyncio.shield(self._loading)
            if attempt.number == number and attempt.error is not None:
                raise attempt.error

    async def _load(self, number: int) -> _Attempt:
        """Load a release beside the live one."""
        history = self.history
        try:
            async with self._loaded_once(number, history) as loaded:
                if loaded is None:
                    said = _not_there(self._loader, number, history)
                    # What is live gets its files yet: from the run that put it there, or the next.
                    status = 503 if number == history.live else 404
                    return _Attempt(number, RequestError(status, said))
                if loaded is not self.live:
                    before, self._beside = self._beside, loaded
                    if before is not None:
                        self._close_unused(before)
                return _Attempt(number, None)
        except FomoError as error:
            status = 500 if number in history.releases else 404
            return _Attempt(number, RequestError(status, str(error)))
        except Exception as error:
            logger.exception("release %d cannot be loaded", number)
            return _Attempt(
                number, RequestError(500, f"release {number} cannot be loaded: {error}")
            )
        finally:
            self._loading = None

    def _close_unused(self, release: LoadedRelease) -> None:
        """Let go of a release that nobody uses any more."""
        if release.users == 0 and release not in (self.live, self._beside):
            task = asyncio.create_task(asyncio.to_thread(release.close))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _waiting(self) -> int:
        loaded = (self.live, self._beside)
        return sum(one.batcher.waiting for one in loaded if one is not None)

    def _trouble(self, said: str) -> None:
        sentence = f"{said}; release {self.live.number} goes on answering"
        if sentence != self.problem:
            logger.warning("%s", sentence)
        self.problem = sentence


def _loaded(loader: Loader, number: int, history: History) -> LoadedRelease:
    release = loader.load(number, history)
    if release is None:
        raise InputError(_not_there(loader, number, history))
    return release


def _not_there(loader: Loader, number: int, history: History) -> str:
    candidate = history.release(number).candidate
    assert candidate is not None
    return (
        f"the files of release {number} of {loader.name} ({candidate.shown}) are not there: with "
        f"`release.forms: [{loader.form}]` in its file, `fomo run {candidate.experiment}` writes "
        "them, or says why not; --engine torch needs none"
    )
