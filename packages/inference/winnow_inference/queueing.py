"""What waits for the device: requests of two classes, and which of their sequences come next."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from winnow_inference.batching import choose_batch, fitting_prefix
from winnow_inference.sequences import TokenSequence


class Priority(Enum):
    """Which work goes first."""

    INTERACTIVE = "interactive"
    """A person waits."""
    BULK = "bulk"
    """Nobody waits."""


class Request:
    """Sequences that belong together: they are admitted together, and one that fails fails them all."""

    def __init__(
        self, sequences: Sequence[TokenSequence], *, priority: Priority, deadline: float | None, in_order: bool
    ) -> None:
        self.sequences = sequences
        self.priority = priority
        self.deadline = deadline
        """Time of `time.monotonic()` after which nobody wants the results; None: never."""
        self.in_order = in_order
        self.tokens = sum(map(len, sequences))
        """Tokens in all."""
        # In any order: the longest first, so that neighbours in the queue are of like length.
        self.waiting = sorted(range(len(sequences)), key=lambda i: 0 if in_order else -len(sequences[i]))
        """Positions of the sequences that have not gone to the device."""
        self.unanswered = len(sequences)
        """Sequences whose results the caller has not taken yet."""
        self.outcomes: asyncio.Queue[Any] = asyncio.Queue()
        """Parts, or one fault at the end."""
        self.closed = False
        """It has ended, or its caller has gone: nothing more may be put into `outcomes`."""
        self.admitted = time.monotonic()
        """When it came into the queue."""
        self.began = float("inf")
        """When its first batch began."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence of a request."""

    request: Request
    index: int

    @property
    def sequence(self) -> TokenSequence:
        """Its tokens."""
        return self.request.sequences[self.index]


class Queue:
    """The waiting requests. Interactive ones go first, bulk ones that have been passed over too long before them."""

    def __init__(self, *, token_budget: int, max_count: int, window_count: int, bulk_patience: float) -> None:
        self._token_budget = token_budget
        self._max_count = max_count
        self._window_count = window_count
        self._bulk_patience = bulk_patience
        self._classes: dict[Priority, deque[Request]] = {priority: deque() for priority in Priority}
        self._bulk_served = 0.0
        self.tokens = 0
        """Tokens that wait, over all requests."""

    def requests(self) -> Iterator[Request]:
        """All requests that have something waiting."""
        for waiting in self._classes.values():
            yield from waiting

    def add(self, request: Request) -> None:
        """Puts a request at the end of its class."""
        request.admitted = time.monotonic()
        if request.priority is Priority.BULK and not self._classes[Priority.BULK]:
            self._bulk_served = request.admitted
        if request.waiting:
            self._classes[request.priority].append(request)
            self.tokens += request.tokens

    def withdraw(self, request: Request) -> None:
        """Drops what a request still has waiting; nothing happens if it has nothing."""
        if request.waiting:
            self.tokens -= sum(len(request.sequences[index]) for index in request.waiting)
            request.waiting = []
            with_others = self._classes[request.priority]
            if request in with_others:
                with_others.remove(request)

    def expired(self, now: float) -> list[Request]:
        """The requests whose deadline has passed; they stay until withdrawn."""
        return [request for request in self.requests() if request.deadline is not None and request.deadline <= now]

    def next_batch(self, now: float) -> list[Item]:
        """Takes the sequences of the next batch out of the queue; empty if nothing waits."""
        interactive, bulk = self._classes[Priority.INTERACTIVE], self._classes[Priority.BULK]
        overdue = bool(bulk) and now - self._bulk_served > self._bulk_patience
        source = bulk if overdue or not interactive else interactive
        if not source:
            return []
        if source is bulk:
            self._bulk_served = now
        window = self._window(source)
        chosen = [
            window[position]
            for position in choose_batch(
                [len(item.sequence) for item in window], token_budget=self._token_budget, max_count=self._max_count
            )
        ]
        self._take(source, chosen)
        return chosen

    def _window(self, source: deque[Request]) -> list[Item]:
        window: list[Item] = []
        for request in source:
            if len(window) >= self._window_count:
                break
            offered = request.waiting[: self._window_count - len(window)]
            if request.in_order:
                # No more than one batch of it at a time, or a later sequence could go before an earlier one.
                lengths = [len(request.sequences[index]) for index in offered]
                offered = offered[: fitting_prefix(lengths, token_budget=self._token_budget, max_count=self._max_count)]
            window.extend(Item(request, index) for index in offered)
        return window

    def _take(self, source: deque[Request], chosen: Sequence[Item]) -> None:
        taken: dict[Request, set[int]] = {}
        for item in chosen:
            taken.setdefault(item.request, set()).add(item.index)
            self.tokens -= len(item.sequence)
        for request, indexes in taken.items():
            request.waiting = [index for index in request.waiting if index not in indexes]
        head = source[0]
        for request in taken:
            if not request.waiting:
                source.remove(request)
        # Requests take turns: a long one does not hold up those behind it.
        if source and source[0] is head:
            source.rotate(-1)
