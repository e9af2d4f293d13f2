import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_inference.scheduling.costs import CostModel

Coefficients = tuple[float, float, float]
SHAPES = [(count, length) for count in (1, 4, 16) for length in (8, 64, 256)]
# A small model on a core, one whose attention tells, one on a GPU where the start of a batch is nearly all.
MACHINES: list[Coefficients] = [(2e-3, 2e-5, 5e-8), (5e-3, 1e-5, 1e-7), (1e-3, 1e-7, 1e-10)]
SLOW_CORE = MACHINES[0]


def true(machine: Coefficients, count: int, length: int) -> float:
    fixed, per_token, per_pair = machine
    return fixed + per_token * count * length + per_pair * count * length * length


def batches(machine: Coefficients, *, noise: float = 0.0, seed: int = 1) -> Iterator[tuple[int, int, float]]:
    """Batches as a runner makes them, of up to 2,000 tokens, each with the time that it took."""
    draw = random.Random(seed)
    while True:
        length = draw.choice([8, 16, 32, 64, 128, 200, 256])
        count = draw.randint(1, 2000 // length)
        yield count, length, true(machine, count, length) * math.exp(draw.gauss(0, noise))


def learned(machine: Coefficients, count: int, *, noise: float = 0.0, costs: CostModel | None = None) -> CostModel:
    costs = costs or CostModel()
    for _, batch in zip(range(count), batches(machine, noise=noise), strict=False):
        costs.observe(*batch)
    return costs


def errors(costs: CostModel, machine: Coefficients) -> list[float]:
    return [costs.seconds(*shape) / true(machine, *shape) - 1 for shape in SHAPES]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_coefficients_are_found_where_nothing_disturbs(machine: Coefficients) -> None:
    # Least squares of exact data, solved step by step: what is left after 400 batches is the last steps' size.
    assert learned(machine, 400).coefficients == pytest.approx(machine, rel=5e-3)


@pytest.mark.parametrize("machine", MACHINES)
def test_times_are_told_from_noisy_batches(machine: Coefficients) -> None:
    # Relative errors of batches that vary by a tenth; measured up to 0.06, low rather than high.
    assert max(map(abs, errors(learned(machine, 400, noise=0.1), machine))) < 0.12


@given(
    observations=st.lists(
        st.tuples(st.integers(1, 256), st.integers(1, 512), st.floats(1e-6, 100.0)), min_size=1, max_size=60
    )
)
def test_no_cost_is_ever_negative_nor_all_of_them_nothing(observations: list[tuple[int, int, float]]) -> None:
    costs = CostModel(observations)
    assert min(costs.coefficients) >= 0
    assert all(math.isfinite(value) for value in costs.coefficients)
    for shape in SHAPES:
        assert costs.seconds(*shape) > 0
    assert costs.seconds(2, 64) >= costs.seconds(1, 64)
    assert costs.seconds(1, 64) >= costs.seconds(1, 32)


def test_a_machine_that_becomes_three_times_slower_is_followed_within_400_batches() -> None:
    costs = learned(SLOW_CORE, 400, noise=0.1)
    slower: Coefficients = (SLOW_CORE[0] * 3, SLOW_CORE[1] * 3, SLOW_CORE[2] * 3)
    learned(slower, 400, noise=0.1, costs=costs)
    assert max(map(abs, errors(costs, slower))) < 0.25


def test_a_machine_that_becomes_three_times_quicker_is_followed_within_200_batches() -> None:
    costs = learned(SLOW_CORE, 400, noise=0.1)
    quicker: Coefficients = (SLOW_CORE[0] / 3, SLOW_CORE[1] / 3, SLOW_CORE[2] / 3)
    learned(quicker, 200, noise=0.1, costs=costs)
    assert max(map(abs, errors(costs, quicker))) < 0.25


@pytest.mark.parametrize(("times", "moved"), [(100, 0.05), (0.01, 0.15)])
def test_one_outlier_does_little(times: float, moved: float) -> None:
    costs = learned(SLOW_CORE, 300, noise=0.1)
    before = [costs.seconds(*shape) for shape in SHAPES]
    costs.observe(8, 128, times * true(SLOW_CORE, 8, 128))
    after = [costs.seconds(*shape) for shape in SHAPES]
    # Of about a hundred batches that count, one that is taken for three times slower or quicker.
    assert max(abs(new / old - 1) for new, old in zip(after, before, strict=True)) < moved


def test_before_anything_is_measured_a_small_model_on_a_slow_core_is_assumed() -> None:
    costs = CostModel()
    assert costs.observations == 0
    assert costs.seconds(1, 100) == pytest.approx(0.011)
    # A slice of 25 ms then holds a passage or two: nobody waits long for the first batches, however slow the machine.
    assert 0.001 < costs.seconds(1, 8) < 0.025 < costs.seconds(8, 128)


@pytest.mark.parametrize("seconds", [1e-4, 0.5])
def test_the_first_batch_is_believed(seconds: float) -> None:
    costs = CostModel()
    costs.observe(4, 100, seconds)
    assert costs.seconds(4, 100) == pytest.approx(seconds, rel=0.01)


def test_a_first_batch_that_was_held_up_is_forgotten_soon() -> None:
    """The first one after a start waits for memory and kernels."""
    costs = CostModel([(1, 8, 1.0)])
    learned(SLOW_CORE, 10, costs=costs)
    assert max(map(abs, errors(costs, SLOW_CORE))) < 0.5


def test_the_batches_before_serving_are_enough_for_the_first_ones_of_it() -> None:
    costs = CostModel([(1, length, true(SLOW_CORE, 1, length)) for length in (8, 32, 128, 256) for _ in range(2)])
    assert costs.observations == 8
    for length in (8, 32, 128, 256):
        assert costs.seconds(1, length) == pytest.approx(true(SLOW_CORE, 1, length), rel=0.1)


def test_a_batch_that_took_no_time_teaches_nothing() -> None:
    costs = learned(SLOW_CORE, 20)
    before = costs.coefficients
    costs.observe(1, 8, 0.0)
    assert (costs.coefficients, costs.observations) == (before, 20)
