"""Metrics of a model service: what waits for the device, and the batches that run on it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from winnow_inference.hosting import HostedModel
from winnow_inference.models.facts import FactsT
from winnow_inference.scheduling.observing import Batch, Observer
from winnow_inference.scheduling.queueing import Priority
from winnow_rpc.metrics import SECONDS, on_loop

_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class InferenceMetrics(Observer):
    """Counts what it observes. The padding's share of what is computed over a time is
    rate(padding) / (rate(padding) + rate(winnow_batch_tokens_sum)): two sums, as a mean of shares would let a small
    batch weigh as much as a large one. Health probes are batches of one token here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batch_tokens = Histogram(
            "winnow_batch_tokens",
            "Tokens of each batch, padding not counted.",
            ["priority"],
            registry=registry,
            buckets=_TOKENS,
        )
        self._padding = Counter(
            "winnow_batch_padding_tokens", "Tokens of padding laid out in batches.", ["priority"], registry=registry
        )
        self._batch_seconds = Histogram(
            "winnow_batch_seconds",
            "Time of each batch on the device.",
            ["priority"],
            registry=registry,
            buckets=SECONDS,
        )
        self._queue_seconds = Histogram(
            "winnow_queue_seconds",
            "From the admission of a request until its first batch begins.",
            ["priority"],
            registry=registry,
            buckets=SECONDS,
        )
        self._restarts = Counter("winnow_engine_restarts", "Engines made anew after one was lost.", registry=registry)

    def batch_ended(self, batch: Batch) -> None:
        """Counts a batch."""
        priority = batch.priority.value
        self._batch_tokens.labels(priority).observe(batch.tokens)
        self._padding.labels(priority).inc(batch.padded_tokens - batch.tokens)
        self._batch_seconds.labels(priority).observe(batch.seconds)

    def request_began(self, priority: Priority, seconds: float) -> None:
        """Counts a wait."""
        self._queue_seconds.labels(priority.value).observe(seconds)

    def engine_restarted(self) -> None:
        """Counts a restart."""
        self._restarts.inc()


def measure(model: HostedModel[FactsT], registry: CollectorRegistry) -> None:
    """Adds the metrics of a model to a registry. Call on the event loop that the model lives on."""
    model.observe(InferenceMetrics(registry))
    tokens = Gauge("winnow_queue_tokens", "Tokens that wait for the device.", ["priority"], registry=registry)
    requests = Gauge("winnow_queue_requests", "Requests that wait for the device.", ["priority"], registry=registry)
    capacity = Gauge("winnow_queue_capacity_tokens", "Tokens that may wait at once.", registry=registry)
    capacity.set(model.limits.max_queued_tokens)
    for priority in Priority:
        tokens.labels(priority.value).set_function(_on_loop(model.queued_tokens, priority))
        requests.labels(priority.value).set_function(_on_loop(model.queued_requests, priority))


def _on_loop(read: Callable[[Priority], int], priority: Priority) -> Callable[[], float]:
    return on_loop(lambda: float(read(priority)))
