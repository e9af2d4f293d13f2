"""What takes long is made once: kept in a file, for the run that goes on after a kill and for the other processes."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from winnow_lab.training.distributed import is_first
from winnow_lab.writing import written


def made_once(path: Path, make: Callable[[], Iterable[Any]]) -> list[Any]:
    """The JSON values in a file of lines (.jsonl.gz). If it is not there, the first process makes it; others wait."""
    if not path.exists() and is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f"{path.name}.half")
        with written(path), gzip.open(half, "wt", encoding="utf-8", compresslevel=1) as file:
            for value in make():
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
        os.replace(half, path)
    while not path.exists():
        time.sleep(0.2)  # whoever started us ends us if the first process fails
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
