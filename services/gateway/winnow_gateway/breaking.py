"""A circuit breaker: keeps a backend that does not work from eating the time of every request. Pure but for its
clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from winnow_rpc.faults import Unavailable


class BreakerOpen(Unavailable):
    """The backend was not called: it has failed several times in a row and is given a pause."""

    default_reason = "BREAKER_OPEN"


class BreakerState(Enum):
    """Whether calls are let through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half-open"
    """One, to see whether it works again."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and for how long."""

    failures: int = 5
    """Failures in a row that open it."""
    first_pause_seconds: float = 0.5
    """How long it stays open at first; the pause doubles with every probe that fails."""
    longest_pause_seconds: float = 2.0
    """The pause doubles up to this."""


@dataclass(eq=False, slots=True)
class Passage:
    """A call that was let through. Tell the breaker how it ended, once."""

    probe: bool


class CircuitBreaker:
    """CLOSED until so many calls in a row failed; OPEN for a pause; then one probe decides."""

    def __init__(self, *, clock: Callable[[], float], settings: BreakerSettings | None = None) -> None:
        self._clock = clock
        self._settings = settings or BreakerSettings()
        self._failures = 0
        self._pause = self._settings.first_pause_seconds
        self._opened: float | None = None
        self._probe: Passage | None = None

    @property
    def state(self) -> BreakerState:
        """As it is now."""
        if self._opened is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._clock() - self._opened >= self._pause else BreakerState.OPEN

    @property
    def admits(self) -> bool:
        """Whether `enter` would let a call through."""
        state = self.state
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and self._probe is None)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let through; 0 if one is now."""
        if self._opened is None:
            return 0.0
        # In this order the rounding of a late clock adds nothing to the pause.
        return max(0.0, self._pause - (self._clock() - self._opened))

    def enter(self) -> Passage | None:
        """Lets a call through, or None: do not call."""
        if not self.admits:
            return None
        passage = Passage(probe=self._opened is not None)
        if passage.probe:
            self._probe = passage
        return passage

    def succeeded(self, passage: Passage) -> None:
        """The backend answered. Whichever call it was, the backend works."""
        self._settle(passage)
        self._failures = 0
        self._opened = None
        self._probe = None
        self._pause = self._settings.first_pause_seconds

    def failed(self, passage: Passage) -> None:
        """The backend did not answer, or not with what was asked for."""
        was_probe = self._settle(passage)
        if was_probe:
            self._opened = self._clock()
            self._pause = min(2 * self._pause, self._settings.longest_pause_seconds)
        elif self._opened is None:
            # Calls that began before it opened say nothing new after.
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._opened = self._clock()

    def abandoned(self, passage: Passage) -> None:
        """The call ended before it showed anything; a probe's place is free for the next."""
        self._settle(passage)

    def _settle(self, passage: Passage) -> bool:
        if self._probe is passage:
            self._probe = None
            return True
        return False
