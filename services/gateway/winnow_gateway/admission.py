"""How much searching may be in hand at once. Pure: work is counted in seconds that searches are expected to take.

There is no queue: a search that would be one too many is refused at once, with the time after which to come back. What
is too many depends on the time that a search has: its own budget, times the searches that may share the backends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from winnow_rpc.faults import ResourceExhausted

_SHORTEST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How much may be in hand."""

    max_searches: int = 256
    """Searches, however small."""
    max_work_seconds: float = 60.0
    """Seconds of expected work of all searches together."""
    sharing: int = 8
    """Searches that may use up their whole time side by side: the work in hand is at most a search's own time times
    this."""


class Admission:
    """Counts the work in hand."""

    def __init__(self, settings: AdmissionSettings | None = None) -> None:
        self._settings = settings or AdmissionSettings()
        self.searches = 0
        """Searches in hand."""
        self.work_seconds = 0.0
        """Their expected work."""

    @contextmanager
    def admitted(self, *, work_seconds: float, left_seconds: float) -> Iterator[None]:
        """Counts a search while it runs. Raises ResourceExhausted if it is one too many."""
        bound = min(self._settings.max_work_seconds, left_seconds * self._settings.sharing)
        # One search alone is never too many: a bound that refuses everybody protects nobody.
        over = self.searches > 0 and self.work_seconds + work_seconds > bound
        if over or self.searches >= self._settings.max_searches:
            raise ResourceExhausted(
                f"{self.searches} searches are in hand, about {self.work_seconds * 1000:,.0f} ms of work; "
                f"this one has {max(0.0, left_seconds) * 1000:,.0f} ms",
                reason="TOO_MANY_SEARCHES",
                metadata={
                    "search_count": str(self.searches),
                    "work_micros": str(round(self.work_seconds * 1e6)),
                },
                retry_after=self._retry_seconds(work_seconds, bound),
            )
        self.searches += 1
        self.work_seconds += work_seconds
        try:
            yield
        finally:
            self.searches -= 1
            # Sums of floats keep crumbs, which would add up.
            self.work_seconds = max(0.0, self.work_seconds - work_seconds) if self.searches else 0.0

    def _retry_seconds(self, work_seconds: float, bound: float) -> float:
        """By then so much of what is in hand is done that this search fits, if the work goes on evenly."""
        excess = self.work_seconds + work_seconds - bound
        return min(max(excess / self._settings.sharing, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
