"""Counters of the service, in the text form of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the classes of latencies."""


class Metrics:
    """The counters of one process; no label holds an id of a user or an item."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "comet_rec_requests", "Requests answered.", ["route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "comet_rec_request_seconds", "Time from a request's headers to its answer.", ["route"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.users = Counter(
            "comet_rec_users", "Users and histories asked for.", registry=self._registry
        )
        self.unknown = Counter(
            "comet_rec_unknown_users", "Users asked for that the log lacks.",
            registry=self._registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "comet_rec_fallback_lists", "Lists of popular items in place of the model's.",
            registry=self._registry,
        )  # fmt: skip
        self.events = Counter("comet_rec_events", "Events kept in memory.", registry=self._registry)
        self.swaps = Counter(
            "comet_rec_swaps", "Swaps of the run.", ["result"], registry=self._registry
        )
        for result in ("done", "refused"):  # Prometheus sees no increase in a series that begins
            self.swaps.labels(result)
        self.waiting = Gauge(
            "comet_rec_waiting_requests", "Requests that wait in a queue.", registry=self._registry
        )
        self._run = Gauge(
            "comet_rec_run_info", "1 for the run that answers.", ["run", "model", "version"],
            registry=self._registry,
        )  # fmt: skip

    def serving(self, runs: dict[str, tuple[str, str]]) -> None:
        """Set the model and the version of each run that answers now."""
        self._run.clear()
        for name, (model, version) in runs.items():
            self._run.labels(name, model, version).set(1)

    def text(self) -> bytes:
        """All counters, as Prometheus reads them."""
        return generate_latest(self._registry)
