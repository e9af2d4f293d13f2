"""Which of how many training processes this is: `torchrun` and `accelerate launch` say so in the environment."""

from __future__ import annotations

import os


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0
