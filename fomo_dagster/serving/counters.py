"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counters:
    """Those of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fomo_requests", "Answers, by endpoint and HTTP status.", ["endpoint", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "fomo_request_seconds", "From a request's start to the end of its answer.",
            ["endpoint"], buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "fomo_batch_rows", "Images or texts that went through the model together.", ["kind"],
            buckets=_ROWS, registry=self._registry,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "fomo_batch_seconds", "What a batch took.", ["kind"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.swaps = Counter(
            "fomo_swaps", "Changes of what is live, by outcome: swapped or failed.", ["outcome"],
            registry=self._registry,
        )  # fmt: skip

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show what `value` gives whenever somebody looks."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def on_batch(self, kind: str, rows: int, seconds: float) -> None:
        """Count a batch, in any thread."""
        self.batch_rows.labels(kind).observe(rows)
        self.batch_seconds.labels(kind).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)
