"""What becomes of supervised processes: readiness, restarts, giving up. No I/O and no clock: times are given to it.

One `Supervision` per process hears of its starts, its address, its health and its ends, and answers each end with a
verdict: restart after a while, or give up. The rules:

- A process that says before it ever served that it cannot start (port in use, data directory in use, corrupt model) has
  looked and decided: starting it again would end the same way, so it is given up at once, with its own sentence.
- A process that crashes before it ever served gets a few starts in all.
- A process that has served is restarted for as long as the stack lives, with exponential backoff.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before a restart: doubling with every end in a row, forgotten after a healthy while."""

    initial_seconds: float = 0.5
    """Wait before the first restart."""
    maximum_seconds: float = 30.0
    """The wait doubles up to this."""
    healthy_seconds: float = 60.0
    """A process that served for so long without a break starts over at the initial wait."""

    def delay(self, ends_before: int) -> float:
        """Seconds to wait after an end that followed `ends_before` others."""
        # 2.0**1024 overflows, and a stack may live for months.
        return min(self.initial_seconds * 2.0 ** min(ends_before, 64), self.maximum_seconds)


@dataclass(frozen=True)
class Exit:
    """How a process ended: its exit status, or minus the number of the signal that killed it."""

    status: int

    def __str__(self) -> str:
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        return f"was killed by {name}"


class Phase(Enum):
    """Where a process is in its life."""

    DOWN = "down"
    """Not running: not started yet, or waiting for its restart."""
    STARTING = "starting"
    """Running, not yet healthy since it started."""
    SERVING = "serving"
    """Its last health check said SERVING."""
    NOT_SERVING = "not serving"
    """It served since it started, and its last health check said otherwise or nothing."""


@dataclass(frozen=True)
class Restart:
    """Start it again."""

    after_seconds: float
    sentence: str


@dataclass(frozen=True)
class GiveUp:
    """It will not come up; the whole stack has to stop."""

    sentence: str


Verdict = Restart | GiveUp

# The reason of a plain `Unavailable`: something that it needs was not there yet. That may pass; other refusals do not.
_PASSING_REASON = "UNAVAILABLE"


class Supervision:
    """The life of one supervised process."""

    def __init__(self, name: str, *, backoff: Backoff | None = None, first_starts: int = 3) -> None:
        self.name = name
        self.phase = Phase.DOWN
        self.address = ""
        """host:port that it listens on; empty until it has said so. Kept over restarts."""
        self.starts = 0
        """How often it was started."""
        self._backoff = backoff or Backoff()
        self._first_starts = first_starts
        self._ends = 0
        self._has_served = False
        self._serving_since: float | None = None
        self._refusal: tuple[str, str] | None = None

    @property
    def port(self) -> int:
        """The port of its address; 0 until known."""
        return int(self.address.rpartition(":")[2] or 0)

    def started(self) -> None:
        """The process runs."""
        self.phase = Phase.STARTING
        self.starts += 1
        self._refusal = None
        self._serving_since = None

    def listening(self, address: str) -> None:
        """It has said where it listens."""
        self.address = address

    def refused(self, *, reason: str, message: str) -> None:
        """It has said that it cannot start, and is about to end."""
        self._refusal = (reason, message)

    def probed(self, *, serving: bool, now: float) -> bool:
        """Its health was asked at `now` (monotonic seconds). True if the answer changed its phase."""
        if self.phase is Phase.DOWN:
            return False
        before = self.phase
        if serving:
            self._has_served = True
            if self._serving_since is None:
                self._serving_since = now
            self.phase = Phase.SERVING
        else:
            self._serving_since = None
            if before is Phase.SERVING:
                self.phase = Phase.NOT_SERVING
        return self.phase is not before

    def exited(self, ending: Exit, *, now: float, last_words: str = "") -> Verdict:
        """It ended at `now` without having been asked to; `last_words` is the last line that it wrote, if any."""
        self.phase = Phase.DOWN
        since, self._serving_since = self._serving_since, None
        if since is not None and now - since >= self._backoff.healthy_seconds:
            self._ends = 0
        if not self._has_served:
            if self._refusal and self._refusal[0] != _PASSING_REASON:
                return GiveUp(f"{self.name} cannot start: {self._refusal[1]}")
            if self.starts >= self._first_starts:
                words = self._refusal[1] if self._refusal else last_words
                said = f", having said: {words}" if words else ""
                return GiveUp(f"{self.name} {ending} at each of {self.starts} starts before it ever served{said}")
        delay = self._backoff.delay(self._ends)
        self._ends += 1
        said = f"cannot start: {self._refusal[1]}" if self._refusal else str(ending)
        return Restart(delay, f"{self.name} {said}; restarting it in {delay:g} s")


def all_serving(supervisions: Iterable[Supervision]) -> bool:
    """Whether the stack as a whole is ready: every last health check said SERVING."""
    return all(supervision.phase is Phase.SERVING for supervision in supervisions)
