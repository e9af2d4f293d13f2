"""Names for what was made, by all that it was made from: what is made of the same has the same name, on every run.

Files count by `sha256_of` of their content, as values among others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def hash_of(values: Iterable[Any]) -> str:
    """One hash (hex) over values that JSON holds, in their order. They are read one after another and not kept."""
    digest = hashlib.sha256()
    for value in values:
        # Without an end to each, [1, 23] were [12, 3]; JSON itself holds no line break.
        digest.update(f"{json.dumps(value)}\n".encode())
    return digest.hexdigest()
