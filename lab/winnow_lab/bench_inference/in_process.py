"""The engine alone, in a process of its own: no gRPC, no tokenization, no queue. Run by `peers/worker.py`.

Batches are chosen as the service chooses them, from a window of what would wait there, and all lanes are busy. What a
service loses against this is what it costs to be a service.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from winnow_embedder.settings import EmbedderSettings
from winnow_inference.engines.base import Engine
from winnow_inference.opening import open_bi_encoder, open_cross_encoder
from winnow_inference.scheduling.batching import choose_batch
from winnow_inference.scheduling.costs import CostModel
from winnow_inference.scheduling.limits import RunnerLimits, runner_limits
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer
from winnow_reranker.assembly import default_model

T = TypeVar("T")

# Waiting sequences among which the service chooses a batch.
_WINDOW = 256


class Contestant:
    """One model in one number format."""

    def __init__(self) -> None:
        self._threads: list[ThreadPoolExecutor] = []
        self._engine: Engine | None = None
        self._sequences: list[TokenSequence] = []

    def load(self, *, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Opens the bi-encoder ("bi") or cross-encoder ("cross") that the settings of inference name."""
        read = InferenceSettings.model_validate(settings)
        opened: Any = open_bi_encoder(read) if kind == "bi" else open_cross_encoder(read, default=default_model)
        facts = opened.facts
        self._prompts = (facts.passage_prompt, facts.query_prompt) if kind == "bi" else (facts.prompt, facts.prompt)
        self._tokenizer = TextTokenizer(opened.tokenizer, max_token_count=facts.max_token_count)
        self._limits: RunnerLimits = runner_limits(read, max_token_count=facts.max_token_count)
        self._costs = CostModel()
        # Each lane lives on one thread, and the engine is made on that of lane 0.
        first = ThreadPoolExecutor(1)
        self._engine = engine = first.submit(opened.make_engine).result()
        self._threads = [first, *(ThreadPoolExecutor(1) for _ in range(engine.lanes.total - 1))]
        for length in self._limits.warm_up_lengths:
            for count in (1, 4):
                self._observe_blank(count, length)
        description = engine.description
        return {"engine": description.name, "dtype": description.dtype, "lanes": engine.lanes.count}

    def tokenize_texts(self, *, texts: list[str], query: bool) -> dict[str, Any]:
        """Keeps the texts' sequences for the calls that follow."""
        made = self._tokenizer.tokenize_texts(texts, prompt=self._prompts[1 if query else 0])
        self._sequences = made.sequences
        return {"tokens": made.token_count}

    def tokenize_pairs(self, *, query: str, documents: list[str]) -> dict[str, Any]:
        """Keeps the pairs' sequences for the calls that follow."""
        made = self._tokenizer.tokenize_pairs([self._prompts[1] + query], documents)
        self._sequences = made.sequences
        return {"tokens": made.token_count}

    def bulk(self, *, group: int, vectors: bool) -> dict[str, Any]:
        """Seconds to compute all kept sequences, `group` of them a request; the batches that were made of them.

        A batch is [sequences, tokens of the longest, tokens of all]. With `vectors` also the results: float32, base64.
        """
        feed = _Feed(self._sequences, group=group, limits=self._limits, costs=self._costs)
        rows: Matrix = np.empty((len(self._sequences), self._ready.width), dtype=np.float32)

        def work(lane: int) -> None:
            while chosen := feed.take():
                batch = [self._sequences[at] for at in chosen]
                began = time.perf_counter()
                rows[chosen] = self._ready.run(self._ready.prepare(batch), lane)
                feed.computed(batch, time.perf_counter() - began)

        began = time.perf_counter()
        running = [self._threads[lane].submit(work, lane) for lane in range(self._ready.lanes.count)]
        for each in running:
            each.result()
        seconds = time.perf_counter() - began
        data = base64.b64encode(rows.astype("<f4").tobytes()).decode() if vectors else ""
        return {"seconds": seconds, "batches": feed.batches, "vectors": data, "dimension": self._ready.width}

    def singles(self) -> dict[str, Any]:
        """Seconds of each kept sequence, computed alone, one after the other, where the service computes queries."""
        lanes = self._ready.lanes
        lane = lanes.count if lanes.express else 0

        def work() -> list[float]:
            taken = []
            for sequence in self._sequences:
                began = time.perf_counter()
                self._ready.run(self._ready.prepare([sequence]), lane)
                taken.append(time.perf_counter() - began)
            return taken

        return {"seconds": self._on(lane, work)}

    def close(self) -> None:
        """Ends the engine, on the thread of lane 0."""
        if self._engine:
            for thread in self._threads[1:]:
                thread.shutdown()
            self._on(0, self._engine.close)
            self._threads[0].shutdown()

    @property
    def _ready(self) -> Engine:
        assert self._engine is not None, "not loaded"
        return self._engine

    def _on(self, lane: int, work: Callable[[], T]) -> T:
        return self._threads[lane].submit(work).result()

    def _observe_blank(self, count: int, length: int) -> None:
        batch = [TokenSequence.blank(length)] * count
        for lane in range(self._ready.lanes.total):
            # The first pass over a new shape compiles it.
            for _ in range(2):
                began = time.perf_counter()
                self._on(lane, lambda lane=lane: self._ready.run(self._ready.prepare(batch), lane))  # type: ignore[misc]
                seconds = time.perf_counter() - began
            self._costs.observe(count, length, seconds)


class _Feed:
    """Hands out batches as a bulk stream's service would; shared by the lanes."""

    def __init__(
        self, sequences: Sequence[TokenSequence], *, group: int, limits: RunnerLimits, costs: CostModel
    ) -> None:
        self._lengths = [len(sequence) for sequence in sequences]
        # The longest of a request first, so that neighbours in the queue are of like length.
        self._groups = [
            sorted(range(start, min(start + group, len(sequences))), key=lambda at: -self._lengths[at])
            for start in range(0, len(sequences), group)
        ]
        self._limits = limits
        self._costs = costs
        self._read_ahead = EmbedderSettings().stream_read_ahead
        self._lock = threading.Lock()
        self.batches: list[tuple[int, int, int]] = []
        """What was made: sequences, tokens of the longest, tokens of all."""

    def take(self) -> list[int]:
        """Positions of the sequences of the next batch; none when all are taken."""
        with self._lock:
            window = [at for group in self._groups[: self._read_ahead] for at in group][:_WINDOW]
            if not window:
                return []
            lengths = [self._lengths[at] for at in window]
            chosen = [window[at] for at in choose_batch(lengths, costs=self._costs, bounds=self._limits.batch_bounds)]
            taken = set(chosen)
            left = ([at for at in group if at not in taken] for group in self._groups)
            self._groups = [group for group in left if group]
            return chosen

    def computed(self, batch: Sequence[TokenSequence], seconds: float) -> None:
        """Learns from a batch."""
        lengths = [len(sequence) for sequence in batch]
        with self._lock:
            self.batches.append((len(batch), max(lengths), sum(lengths)))
            self._costs.observe(len(batch), max(lengths), seconds)
