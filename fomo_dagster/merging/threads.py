"""Threads that work ahead, whose results come in the order of the tasks.

As many as PyTorch may use in this process (`OMP_NUM_THREADS`; a slot's share of the cores), so that
merges beside each other do not take more than one alone. NumPy lets others run within its loops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import torch

T = TypeVar("T")

_AHEAD = 2
"""Tasks of each thread that are begun, or done, before their results are asked for."""


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Within it PyTorch computes each product and decomposition of matrices with one thread.

    Their last digits depend on how many share one. Enter it after `Threads`, which work on several
    matrices at once instead. It counts for the whole process.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads:
    """A context manager; one thread is the caller's own."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def in_order(self, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What the tasks return. The caller's thread goes through `tasks`, a few ahead of what it
        was given, and may use these threads for that itself.

        Raises what the first task that fails raises, or going on to the next one, as one thread
        would. Tasks that were begun then may still end, at the latest with this context.
        """
        if self._pool is None:
            yield from (task() for task in tasks)
            return
        begun = deque[Future[T]]()
        failed: Exception | None = None
        try:
            following = iter(tasks)
            while failed is None:
                try:
                    begun.append(self._pool.submit(next(following)))
                except StopIteration:
                    break
                except Exception as error:
                    failed = error  # after what those before it raise
                if len(begun) > _AHEAD * self.count:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
            if failed is not None:
                raise failed
        finally:
            for future in begun:
                future.cancel()
