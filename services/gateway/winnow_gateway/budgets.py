"""The time of one search."""

from __future__ import annotations

from collections.abc import Callable

from winnow_rpc.faults import DeadlineExceeded

# What a margin may take of a short time at most: something must be left to work with.
_LARGEST_MARGIN_SHARE = 0.2
# The longer the work that is cut off, the more of it is still on the device when the answer is made.
_BUDGET_MARGIN_SHARE = 0.02
# An answer that is late for its budget is late; one that is late for the call's deadline is lost. So that margin is
# wider.
_DEADLINE_MARGIN_SHARE = 0.05
_LARGEST_DEADLINE_MARGIN_SECONDS = 0.25


class Budget:
    """When a search ought to be answered, and when its caller gives up.

    The first is what optional work (reranking) stops for; what an answer cannot do without goes on until the second.
    Where the caller names no budget, optional work stops for the deadline, some time before it.
    """

    def __init__(
        self,
        *,
        deadline_seconds: float,
        budget_seconds: float | None,
        margin_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """Both count from now; `margin_seconds` is what it takes to answer once the work has stopped."""
        self._clock = clock
        self.began = clock()
        self.has_budget = budget_seconds is not None
        self.deadline = self.began + deadline_seconds
        """When the caller gives up, on the clock."""
        wide = min(_LARGEST_DEADLINE_MARGIN_SECONDS, max(margin_seconds, deadline_seconds * _DEADLINE_MARGIN_SHARE))
        self.latest_stop = self.deadline - min(wide, deadline_seconds * _LARGEST_MARGIN_SHARE)
        """When work stops that the caller insists on, on the clock."""
        self.stop_at = self.latest_stop
        """When optional work stops, on the clock."""
        if budget_seconds is not None:
            margin = margin_seconds + budget_seconds * _BUDGET_MARGIN_SHARE
            margin = min(margin, budget_seconds * _LARGEST_MARGIN_SHARE)
            self.stop_at = min(self.latest_stop, self.began + budget_seconds - margin)

    @property
    def left(self) -> float:
        """Seconds until optional work stops; never negative."""
        return max(0.0, self.stop_at - self._clock())

    @property
    def until_deadline(self) -> float:
        """Seconds until the caller gives up, above 0. Raises DeadlineExceeded if he has."""
        left = self.deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded("the caller's deadline passed before the search was done", reason="DEADLINE")
        return left

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock() - self.began
