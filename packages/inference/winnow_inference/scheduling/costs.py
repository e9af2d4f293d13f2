"""What a batch costs in time, learned from the batches that ran. Pure arithmetic.

A forward pass over `count` sequences padded to `longest` tokens takes about

    seconds = fixed + per_token * count * longest + per_pair * count * longest²

since most of a transformer is linear in the tokens and attention is quadratic in the length (Vaswani et al. 2017,
table 1). The three are never negative. They are fitted by least squares of the relative error, older batches counting
ever less, so that the model follows a machine whose speed changes.
"""

from __future__ import annotations

from collections.abc import Sequence

# A batch's weight falls to a tenth within about 230 batches: seconds of a busy device.
_DECAY = 0.99
# Passes of coordinate descent per observation. Each starts from the last solution, so few are enough.
_SWEEPS = 6
# How much one batch may differ from what was expected of it and still count whole. A batch that the machine held up for
# its own reasons would else throw the fit off for hundreds of batches.
_LARGEST_SURPRISE = 3.0
# Seconds; shorter than any batch.
_SHORTEST = 1e-6
# Before anything was measured: a small model on a slow core. Only the first batches are formed with it.
_UNMEASURED = (1e-3, 1e-4, 0.0)


class CostModel:
    """Seconds of a batch by its shape. Not safe for threads; the event loop owns it."""

    def __init__(self, observations: Sequence[tuple[int, int, float]] = ()) -> None:
        """`observations` are (count, longest, seconds) to start from."""
        self._coefficients = list(_UNMEASURED)
        self._squares = [[0.0] * 3 for _ in range(3)]
        self._products = [0.0] * 3
        self.observations = 0
        """Batches that it has learned from."""
        for count, longest, seconds in observations:
            self.observe(count, longest, seconds)

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """Seconds per batch, per padded token, and per padded token and token of the longest."""
        fixed, per_token, per_pair = self._coefficients
        return fixed, per_token, per_pair

    def seconds(self, count: int, longest: int) -> float:
        """Expected time of a batch of `count` sequences padded to `longest` tokens."""
        fixed, per_token, per_pair = self._coefficients
        return fixed + count * longest * (per_token + per_pair * longest)

    def observe(self, count: int, longest: int, seconds: float) -> None:
        """Learns from a batch that took that long; nothing happens for one that took no time."""
        if seconds <= 0:
            return
        # Errors count relative to the time that was to be expected, so that a short batch's counts as much as a long
        # one's. Relative to what was measured, batches that took too long for their own reasons would hardly count.
        scale = seconds
        if self.observations > len(_UNMEASURED):
            scale = max(self.seconds(count, longest), seconds / _LARGEST_SURPRISE, _SHORTEST)
            seconds = min(max(seconds, scale / _LARGEST_SURPRISE), scale * _LARGEST_SURPRISE)
        features = (1 / scale, count * longest / scale, count * longest * longest / scale)
        for i in range(3):
            self._products[i] = self._products[i] * _DECAY + features[i] * seconds / scale
            for j in range(3):
                self._squares[i][j] = self._squares[i][j] * _DECAY + features[i] * features[j]
        self.observations += 1
        self._fit()

    def _fit(self) -> None:
        """Non-negative least squares by coordinate descent."""
        for _ in range(_SWEEPS):
            for i in range(3):
                row, square = self._squares[i], self._squares[i][i]
                if square > 0:
                    residual = self._products[i] - sum(row[j] * self._coefficients[j] for j in range(3))
                    self._coefficients[i] = max(0.0, self._coefficients[i] + residual / square)
