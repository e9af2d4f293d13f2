"""What passes between tokenization, runner and engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
"""Token ids, or the segment ids beside them; one dimension."""

Matrix = NDArray[np.float32]
"""Results: one row a sequence."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One input of the model, special tokens included, no padding."""

    ids: Ids
    """Token ids, at least one."""
    segments: Ids
    """For each token the segment that it belongs to (`token_type_ids`); 0 where the model knows no segments."""
    prompt_length: int = 0
    """Leading tokens that belong to the prompt, for models that leave it out of pooling; else 0."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def blank(cls, length: int) -> TokenSequence:
        """A sequence of that many tokens that says nothing: id 0, which every vocabulary has."""
        return cls(np.zeros(length, dtype=np.int32), np.zeros(length, dtype=np.int32))
