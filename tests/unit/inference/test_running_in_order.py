"""What it costs to run the sequences of a request in their order, and what it gains whoever stops half-way: computed
from costs that are known, on lengths as passages have them."""

import random
from collections.abc import Iterator

import pytest

from tests.unit.inference.fakes import FixedCosts, sequence
from winnow_inference.scheduling.batching import BatchBounds
from winnow_inference.scheduling.queueing import Priority, Queue, Request

BOUNDS = BatchBounds(seconds=0.025, tokens=32_768, count=256)
CPU = FixedCosts(1e-3, 1 / 30_000)
FAST_CPU = FixedCosts(1e-3, 1 / 150_000)
GPU = FixedCosts(2e-3, 1 / 1_000_000)


def passages(count: int, seed: int) -> list[int]:
    """Lengths of pairs: 24 to 512 tokens, 150 on average."""
    chance = random.Random(seed)
    return [min(512, max(24, int(chance.lognormvariate(4.8, 0.7)))) for _ in range(count)]


def run(lengths: list[int], costs: FixedCosts, *, in_order: bool) -> Iterator[tuple[float, int, int]]:
    """After each batch: its seconds, how many are done, and how many of those have none before them that is not."""
    queue = Queue(costs=costs, bounds=BOUNDS)
    sequences = [sequence(at, length) for at, length in enumerate(lengths)]
    queue.add(Request(sequences, priority=Priority.INTERACTIVE, deadline=None, in_order=in_order))
    done: set[int] = set()
    prefix = 0
    while batch := queue.next_batch(Priority.INTERACTIVE, 0.0):
        done.update(item.index for item in batch)
        while prefix in done:
            prefix += 1
        yield costs.seconds(len(batch), max(len(item.sequence) for item in batch)), len(done), prefix


def usable(steps: list[tuple[float, int, int]]) -> float:
    """The share of the sequences without a gap before them, on average over the whole time; 0.5 is a steady march."""
    total = sum(seconds for seconds, _, _ in steps)
    before = [0] + [prefix for _, _, prefix in steps]
    return sum(step[0] * prefix for step, prefix in zip(steps, before, strict=False)) / total / steps[-1][1]


@pytest.mark.parametrize(("costs", "dearer", "steady"), [(CPU, 1.15, 0.48), (FAST_CPU, 1.35, 0.45), (GPU, 1.35, 0.3)])
def test_in_order_most_of_what_is_done_can_be_used_and_the_gain_of_like_lengths_is_kept(
    costs: FixedCosts, dearer: float, steady: float
) -> None:
    requests = [passages(100, seed) for seed in range(10)]
    in_order = [list(run(lengths, costs, in_order=True)) for lengths in requests]
    in_any = [list(run(lengths, costs, in_order=False)) for lengths in requests]

    def seconds(all_steps: list[list[tuple[float, int, int]]]) -> float:
        return sum(step[0] for steps in all_steps for step in steps)

    mean = sum(map(usable, in_order)) / len(in_order)
    assert seconds(in_order) <= dearer * seconds(in_any)
    assert mean >= steady
