"""One turn of a contestant in a process of its own: `python -m winnow_lab.bench_training.worker '{…}'` → JSON."""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from winnow_inference.sample_texts import paragraphs
from winnow_lab.data.converting import triplets_of
from winnow_lab.data.examples import Group, Groups
from winnow_lab.data.reading import read_data
from winnow_lab.training.columns import columns_for
from winnow_lab.training.settings import Architecture, Loss, TrainingSettings
from winnow_rpc.faults import InvalidArgument

LOSSES = {Architecture.CROSS_ENCODER: Loss.LAMBDA, Architecture.BI_ENCODER: Loss.MNR}
"""What both contestants minimise."""


def sample_groups(count: int, documents: int) -> list[Group]:
    """Groups of what every interpreter carries: a paragraph's first sentence, the paragraph, and others by chance."""
    texts = paragraphs(100_000)
    draw = random.Random(0)
    groups = []
    for at in range(count):
        text = texts[at % len(texts)]
        others = draw.sample([other for other in texts if other != text], documents - 1)
        groups.append(Group(text.split(". ")[0][:200], (text, *others), (1.0,) + (0.0,) * (documents - 1)))
    return groups


def turn(
    contestant: str, architecture: Architecture, start: Path, data: str, *, documents: int, batch_size: int, steps: int,
    bf16: bool,
) -> dict[str, Any]:  # fmt: skip
    """Trains so many steps; seconds of the training alone, and what it trained on."""
    groups = _groups(data, batch_size * steps, documents)
    loss = LOSSES[architecture]
    cross = architecture is Architecture.CROSS_ENCODER
    examples: Any = groups if cross else triplets_of(Groups(source="", groups=groups))
    columns = columns_for(loss, examples)
    pairs = sum(len(group.documents) if cross else len(group.documents) - 1 for group in groups)
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        out = Path(folder) / "out"
        if contestant == "winnow":
            from winnow_lab.training import running

            settings = TrainingSettings(loss=loss, batch_size=batch_size, max_steps=steps, every=steps, bf16=bf16)
            train = running.train_cross_encoder if cross else running.train_bi_encoder
            trained = train(start, examples, settings, [], out)
            seconds, mean = trained.seconds, statistics.fmean(point.value for point in trained.history.losses)
        else:
            from winnow_lab.bench_training import plain

            script = plain.train_cross_encoder if cross else plain.train_bi_encoder
            seconds, mean = script(start, columns, out, batch_size=batch_size, steps=steps, bf16=bf16)
    return {"seconds": seconds, "pairs": pairs, "loss": mean}


def _groups(data: str, count: int, documents: int) -> list[Group]:
    if not data:
        return sample_groups(count, documents)
    read = read_data(Path(data))
    if not isinstance(read, Groups):
        raise InvalidArgument(f"{data}: the benchmark trains on groups (query, documents, labels)")
    kept = [
        Group(group.query, group.documents[:documents], group.labels[:documents])
        for group in read.groups
        if len(group.documents) >= documents
    ]
    if len(kept) < count:
        raise InvalidArgument(f"{data} holds {len(kept)} groups of {documents} documents; {count} are needed")
    return kept[:count]


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    made = turn(
        asked.pop("contestant"), Architecture(asked.pop("architecture")), Path(asked.pop("start")), asked.pop("data"),
        **asked,
    )  # fmt: skip
    print(json.dumps(made))
