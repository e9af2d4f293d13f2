from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from winnow_inference.engines.torch_batch import feature_names, padded, random_sequences
from winnow_inference.engines.torch_graphs import CudaCapturer, Graphs, GraphShape, graph_shapes, smallest_that_holds
from winnow_inference.engines.torch_placement import Device, Placement, check_agreement
from winnow_inference.models.facts import Padding
from winnow_inference.sequences import TokenSequence


def test_shapes_are_few_small_and_in_order() -> None:
    shapes = graph_shapes(512)
    assert shapes[0] == GraphShape(1, 16)
    assert GraphShape(1, 128) in shapes
    assert GraphShape(8, 64) in shapes
    assert GraphShape(8, 128) not in shapes  # the GPU has enough to do
    assert len(shapes) == 15
    assert [shape.tokens for shape in shapes] == sorted(shape.tokens for shape in shapes)


@pytest.mark.parametrize(("longest", "lengths"), [(512, {16, 32, 64, 128}), (40, {16, 32, 40}), (9, {9})])
def test_no_shape_is_longer_than_the_model_reads(longest: int, lengths: set[int]) -> None:
    assert {shape.length for shape in graph_shapes(longest)} == lengths


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 200))
def test_a_batch_goes_into_the_smallest_shape_that_holds_it(longest: int, count: int, length: int) -> None:
    shapes = graph_shapes(longest)
    fitting = [shape for shape in shapes if shape.count >= count and shape.length >= length]
    found = smallest_that_holds(count, length, shapes)
    if found is None:
        assert not fitting
    else:
        assert found in fitting
        assert found.tokens == min(shape.tokens for shape in fitting)


@pytest.mark.parametrize("left", [False, True])
def test_batches_are_filled_up_on_the_side_that_the_model_wants(left: bool) -> None:
    batch = [TokenSequence(np.array([7, 8, 9]), np.array([0, 1, 1])), TokenSequence(np.array([5]), np.array([0]))]
    padding = Padding(token_id=1, segment_id=2, left=left, segments=True)
    features = padded(
        batch, padding, allocate=lambda shape: torch.full(tuple(shape), 99, dtype=torch.int64), count=3, length=4
    )
    assert feature_names(padding) == ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, segments = features.tolist()
    if left:
        assert ids == [[1, 7, 8, 9], [1, 1, 1, 5], [1, 1, 1, 1]]
        assert mask == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
        assert segments == [[2, 0, 1, 1], [2, 2, 2, 0], [2, 2, 2, 2]]
    else:
        assert ids == [[7, 8, 9, 1], [5, 1, 1, 1], [1, 1, 1, 1]]
        assert mask == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
        assert segments == [[0, 1, 1, 2], [0, 2, 2, 2], [2, 2, 2, 2]]


def test_a_model_without_segments_gets_none() -> None:
    padding = Padding(token_id=0, segment_id=0, left=False, segments=False)
    features = padded([TokenSequence.blank(3)], padding, allocate=lambda shape: torch.empty(*shape, dtype=torch.int64))
    assert features.shape == (2, 1, 3)
    assert len(feature_names(padding)) == 2


def test_trials_are_the_same_every_time() -> None:
    first, again = (random_sequences([3, 5], vocabulary=50, seed=1) for _ in range(2))
    assert [one.ids.tolist() for one in first] == [one.ids.tolist() for one in again]
    assert max(one.ids.max() for one in first) < 50


class Rerun:
    """Records by remembering what to call, and leaves the result where it was first."""

    def __init__(self) -> None:
        self.captured = 0

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.captured += 1
        output = compute()

        def replay() -> None:
            output.copy_(compute())

        return replay, output


class Deaf(Rerun):
    """Replays what it recorded, whatever its input holds by then."""

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        return (lambda: None), compute()


class Failing(Rerun):
    """Cannot record its third shape."""

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        if self.captured == 2:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return super().capture(compute)


SHAPES = graph_shapes(40)


def total(features: torch.Tensor) -> torch.Tensor:
    return features[0].float().sum(1, keepdim=True)


def examples(shape: GraphShape) -> Sequence[torch.Tensor]:
    first = torch.arange(2 * shape.tokens).view(2, shape.count, shape.length)
    return first, first + 1


def check(found: torch.Tensor, expected: torch.Tensor) -> None:
    check_agreement(found, expected, tolerance=1e-6)


def recorded(capturer: Rerun) -> Graphs:
    return Graphs(SHAPES, capturer=capturer, compute=total, examples=examples, check=check)


def test_every_shape_is_recorded_when_made_and_none_later() -> None:
    capturer = Rerun()
    graphs = recorded(capturer)
    assert graphs.shapes == SHAPES
    assert not graphs.obstacle
    for shape in SHAPES:
        features = torch.full((2, shape.count, shape.length), 3)
        assert graphs.run(features).tolist() == [[3.0 * shape.length]] * shape.count
    assert capturer.captured == len(SHAPES)


def test_one_failure_turns_graphs_off_with_a_reason() -> None:
    graphs = recorded(Failing())
    assert graphs.shapes == ()
    assert graphs.obstacle == "RuntimeError: operation not permitted when stream is capturing"


def test_a_graph_that_does_not_hear_its_input_is_found_out() -> None:
    graphs = recorded(Deaf())
    assert graphs.shapes == ()
    assert "results differ" in graphs.obstacle


@pytest.mark.gpu
def test_cuda_graphs_give_what_was_computed_for_any_input() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    device = Device(Placement(device="cuda:0", dtype="float16", threads=0, reason=""))
    with device.active():
        weights = torch.randn(50, 8, device="cuda:0")

        def compute(features: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.embedding(features[0], weights).sum(1)

        graphs = Graphs(
            SHAPES,
            capturer=CudaCapturer(),
            compute=compute,
            examples=lambda shape: [device.upload(example % 50) for example in examples(shape)],
            check=check,
        )
        assert not graphs.obstacle
        for seed, shape in enumerate((*SHAPES, *reversed(SHAPES))):
            generator = torch.Generator().manual_seed(seed)
            features = torch.randint(50, (2, shape.count, shape.length), generator=generator)
            check(graphs.run(features), compute(device.upload(features)))
