"""What waits for the device: requests of two classes, and which of their sequences come next."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count, islice
from typing import Any

from winnow_inference.scheduling.batching import BatchBounds, choose_batch, fitting_prefix
from winnow_inference.scheduling.costs import CostModel
from winnow_inference.sequences import TokenSequence

# A batch is chosen among the first sequences that wait, as many as fill about this many batches: more would match
# lengths no better, and cost more to look at than they save.
_WINDOW_BATCHES = 16
_WINDOW_COUNT = 256


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
        self.tokens = sum(map(len, sequences))
        """Tokens in all."""
        self.in_order = in_order
        self.block_end = 0
        """In order: nothing from this position on is begun before all that comes before it has been."""
        self.waiting: deque[int] = deque(self._in_sequence(range(len(sequences))))
        """Positions of the sequences that are in the queue."""
        self.waiting_tokens = self.tokens
        """Tokens of those."""
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
        self.place = 0
        """In its class: those of lower places have their turn before it."""

    def _in_sequence(self, indexes: Collection[int]) -> list[int]:
        # In any order: the longest first, so that neighbours in the queue are of like length.
        return sorted(indexes, key=lambda i: i if self.in_order else (-len(self.sequences[i]), i))

    def take(self, indexes: Collection[int]) -> None:
        """Takes sequences out of the queue."""
        taken = set(indexes)
        self.waiting = deque(index for index in self.waiting if index not in taken)
        self.waiting_tokens -= sum(len(self.sequences[index]) for index in taken)

    def put_back(self, indexes: Collection[int]) -> None:
        """Puts sequences that were taken, but not run, back where they were."""
        self.waiting = deque(self._in_sequence([*self.waiting, *indexes]))
        self.waiting_tokens += sum(len(self.sequences[index]) for index in indexes)

    def is_wanted(self, now: float) -> bool:
        """Somebody still waits for its results."""
        return not self.closed and (self.deadline is None or self.deadline > now)


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence of a request."""

    request: Request
    index: int
    turn: int | None = None
    """The place of the request if this was taken in its turn; None: it filled up the batch of another."""

    @property
    def sequence(self) -> TokenSequence:
        """Its tokens."""
        return self.request.sequences[self.index]


class Queue:
    """The waiting requests, by class. Requests of one class take turns."""

    def __init__(self, *, costs: CostModel, bounds: BatchBounds) -> None:
        self._costs = costs
        self._bounds = bounds
        # By place.
        self._classes: dict[Priority, deque[Request]] = {priority: deque() for priority in Priority}
        self._places = count()
        self._last_turn: dict[Priority, Request] = {}
        self._served = dict.fromkeys(Priority, 0.0)
        self.tokens = 0
        """Tokens that wait, over all requests."""

    def requests(self) -> Iterator[Request]:
        """All requests that have something waiting."""
        for waiting in self._classes.values():
            yield from waiting

    def of_class(self, priority: Priority) -> Collection[Request]:
        """The requests of a class that have something waiting, in turn."""
        return self._classes[priority]

    def passed_over_seconds(self, priority: Priority, now: float) -> float:
        """How long a class has had something waiting and got no batch; 0 if nothing of it waits."""
        return now - self._served[priority] if self._classes[priority] else 0.0

    def add(self, request: Request) -> None:
        """Puts a request at the end of its class."""
        request.admitted = time.monotonic()
        waiting = self._classes[request.priority]
        if not waiting:
            self._served[request.priority] = request.admitted
        if request.waiting:
            request.place = next(self._places)
            waiting.append(request)
            # The one request that waited has just had its turn: the newcomer goes first.
            if len(waiting) == 2 and waiting[0] is self._last_turn.get(request.priority):
                self._to_the_end(waiting)
            self.tokens += request.waiting_tokens

    def withdraw(self, request: Request) -> None:
        """Drops what a request still has waiting; nothing happens if it has nothing."""
        if request.waiting:
            self.tokens -= request.waiting_tokens
            request.waiting_tokens = 0
            request.waiting.clear()
            self._classes[request.priority].remove(request)

    def expired(self, now: float) -> list[Request]:
        """The requests whose deadline has passed; they stay until withdrawn."""
        return [request for request in self.requests() if not request.is_wanted(now)]

    def next_batch(self, priority: Priority, now: float) -> list[Item]:
        """Takes the sequences of the class's next batch out of the queue; empty if nothing waits."""
        source = self._classes[priority]
        if not source:
            return []
        self._served[priority] = now
        window = self._window(source)
        chosen = [
            window[position]
            for position in choose_batch(
                [len(item.sequence) for item in window], costs=self._costs, bounds=self._bounds
            )
        ]
        self._take(source, chosen)
        return chosen

    def put_back(self, items: Sequence[Item], *, passed_over_since: float) -> None:
        """Puts a batch that has not begun back, as if it had not been taken. Its class is passed over since then."""
        priority = items[0].request.priority
        self._served[priority] = min(self._served[priority], passed_over_since)
        turns = {item.request: item.turn for item in items if item.turn is not None}
        waiting = self._classes[priority]
        for request, indexes in _by_request(items).items():
            if request.closed:
                continue
            if request.waiting:
                waiting.remove(request)
            # With the turn that it has not had: else one whose batches are taken back again and again, because others
            # keep coming, would never have it. Those that filled the batch up had theirs not yet, and keep their place.
            if request in turns:
                request.place = min(request.place, turns[request])
                if self._last_turn.get(priority) is request:
                    del self._last_turn[priority]
            insort(waiting, request, key=lambda other: other.place)
            request.put_back(indexes)
            self.tokens += sum(len(request.sequences[index]) for index in indexes)

    def _window(self, source: deque[Request]) -> list[Item]:
        window: list[Item] = []
        seconds = 0.0
        for request in source:
            offered = self._block(request) if request.in_order else islice(request.waiting, _WINDOW_COUNT)
            for index in offered:
                window.append(Item(request, index, request.place if request is source[0] else None))
                seconds += self._costs.seconds(1, len(request.sequences[index]))
                if seconds > _WINDOW_BATCHES * self._bounds.seconds or len(window) >= _WINDOW_COUNT:
                    return window
        return window

    def _block(self, request: Request) -> Sequence[int]:
        """What of a request in order may go now: what is left of the first sequences that would fit one batch.

        Among these, like lengths go together. The next ones wait until all of these have been taken, or short ones
        would run ahead of the long ones, batch after batch, and leave gaps.
        """
        offered = list(islice(request.waiting, _WINDOW_COUNT))
        lengths = [len(request.sequences[index]) for index in offered]
        offered = offered[: fitting_prefix(lengths, costs=self._costs, bounds=self._bounds)]
        if offered[0] >= request.block_end:
            request.block_end = offered[-1] + 1
        return [index for index in offered if index < request.block_end]

    def _take(self, source: deque[Request], chosen: Sequence[Item]) -> None:
        head = source[0]
        for request, indexes in _by_request(chosen).items():
            request.take(indexes)
            self.tokens -= sum(len(request.sequences[index]) for index in indexes)
            if not request.waiting:
                source.remove(request)
        # Requests take turns: a long one does not hold up those behind it.
        if source and source[0] is head:
            self._to_the_end(source)
            self._last_turn[head.priority] = head
        else:
            self._last_turn.pop(head.priority, None)

    def _to_the_end(self, source: deque[Request]) -> None:
        """Gives the first of a class the last place."""
        source[0].place = next(self._places)
        source.rotate(-1)


def _by_request(items: Sequence[Item]) -> dict[Request, list[int]]:
    found: dict[Request, list[int]] = {}
    for item in items:
        found.setdefault(item.request, []).append(item.index)
    return found
