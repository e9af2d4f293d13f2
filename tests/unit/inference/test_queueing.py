from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.inference.fakes import FixedCosts, sequence
from winnow_inference.scheduling.batching import BatchBounds, fitting_prefix
from winnow_inference.scheduling.queueing import Item, Priority, Queue, Request

COSTS = FixedCosts(1e-3, 1e-5)
BOUNDS = BatchBounds(seconds=1.0, tokens=100, count=8)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def queue(bounds: BatchBounds = BOUNDS) -> Queue:
    return Queue(costs=COSTS, bounds=bounds)


def request(
    *lengths: int, priority: Priority = INTERACTIVE, in_order: bool = False, deadline: float | None = None
) -> Request:
    sequences = [sequence(at, length) for at, length in enumerate(lengths)]
    return Request(sequences, priority=priority, deadline=deadline, in_order=in_order)


def taken(items: list[Item], of: Request) -> list[int]:
    return sorted(item.index for item in items if item.request is of)


def owners(items: list[Item]) -> set[Request]:
    return {item.request for item in items}


def end(waiting: Queue, ended: Request) -> None:
    """As the runner does."""
    ended.closed = True
    waiting.withdraw(ended)


def test_an_empty_queue_gives_no_batch() -> None:
    assert queue().next_batch(INTERACTIVE, 0.0) == []


def test_classes_do_not_mix() -> None:
    waiting = queue()
    query, bulk = request(10), request(10, priority=BULK)
    waiting.add(bulk)
    waiting.add(query)
    assert owners(waiting.next_batch(INTERACTIVE, 0.0)) == {query}
    assert owners(waiting.next_batch(BULK, 0.0)) == {bulk}
    assert waiting.tokens == 0


def test_requests_of_one_class_share_a_batch_and_the_oldest_is_in_it() -> None:
    waiting = queue()
    requests = [request(10) for _ in range(5)]
    for one in requests:
        waiting.add(one)
    assert owners(waiting.next_batch(INTERACTIVE, 0.0)) == set(requests)


def test_requests_take_turns() -> None:
    waiting = queue()
    first, second = request(*[50] * 6), request(*[10] * 30)
    waiting.add(first)
    waiting.add(second)
    served = [owners(waiting.next_batch(INTERACTIVE, 0.0)) for _ in range(4)]
    assert first in served[0]
    assert second in served[1]
    assert first in served[2]
    assert second in served[3]


def test_a_newcomer_goes_before_the_one_request_that_has_just_had_its_turn() -> None:
    waiting = queue()
    long, query = request(*[50] * 6), request(10)
    waiting.add(long)
    waiting.next_batch(INTERACTIVE, 0.0)
    waiting.add(query)
    assert query in owners(waiting.next_batch(INTERACTIVE, 0.0))


def test_newcomers_do_not_keep_each_other_from_their_turn() -> None:
    waiting = queue()
    long = request(*[50] * 20)
    waiting.add(long)
    waiting.next_batch(INTERACTIVE, 0.0)
    for _ in range(6):
        waiting.add(request(*[10] * 30))
    seen = [owners(waiting.next_batch(INTERACTIVE, 0.0)) for _ in range(8)]
    assert any(long in batch for batch in seen)


def test_without_order_the_longest_of_a_request_go_first() -> None:
    waiting = queue()
    only = request(10, 60, 20, 90, 30)
    waiting.add(only)
    assert taken(waiting.next_batch(INTERACTIVE, 0.0), only) == [3]


def test_in_order_nothing_goes_before_what_one_batch_holds() -> None:
    waiting = queue()
    only = request(30, 5, 60, 20, 90, 5, in_order=True)
    waiting.add(only)
    order = []
    while batch := waiting.next_batch(INTERACTIVE, 0.0):
        order.append(taken(batch, only))
    assert sorted(index for batch in order for index in batch) == list(range(6))
    assert max(order[0]) <= 1, "30 and 5 fit one batch; 60 would not"


@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=40))
def test_in_order_all_that_one_batch_could_hold_is_begun_before_anything_after_it(lengths: list[int]) -> None:
    waiting = queue()
    only = request(*lengths, in_order=True)
    waiting.add(only)
    begun = 0
    while begun < len(lengths):
        block = fitting_prefix(lengths[begun:], costs=COSTS, bounds=BOUNDS)
        taken_of_it: list[int] = []
        while len(taken_of_it) < block:
            taken_of_it += taken(waiting.next_batch(INTERACTIVE, 0.0), only)
        begun += block
        assert sorted(taken_of_it) == list(range(begun - block, begun))


def test_in_order_what_was_put_back_of_an_earlier_block_goes_before_the_later_one() -> None:
    waiting = queue()
    only = request(*[50] * 6, in_order=True)
    waiting.add(only)
    first = waiting.next_batch(INTERACTIVE, 0.0)
    assert taken(waiting.next_batch(INTERACTIVE, 0.0), only) == [2, 3]
    waiting.put_back(first, passed_over_since=0.0)
    assert [taken(waiting.next_batch(INTERACTIVE, 0.0), only) for _ in range(2)] == [[0, 1], [4, 5]]


def test_what_was_put_back_goes_first_again() -> None:
    waiting = queue()
    first, second = request(50, 50), request(50, 50)
    waiting.add(first)
    waiting.add(second)
    batch = waiting.next_batch(INTERACTIVE, 0.0)
    before = waiting.tokens
    waiting.put_back(batch, passed_over_since=0.0)
    assert waiting.tokens == before + 100
    assert first in owners(waiting.next_batch(INTERACTIVE, 0.0))
    assert waiting.tokens == before


def test_a_request_whose_batches_are_taken_back_again_and_again_keeps_its_turn() -> None:
    waiting = queue()
    large = request(50, 50, 50, 50)
    waiting.add(large)
    for _ in range(5):
        waiting.add(request(50, 50))
        batch = waiting.next_batch(INTERACTIVE, 0.0)
        assert taken(batch, large)
        waiting.put_back(batch, passed_over_since=0.0)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("recalls", [1, 2, 3])
def test_batches_that_are_taken_back_leave_every_stream_its_turns(in_order: bool, recalls: int) -> None:
    def served(times: int) -> list[list[tuple[int, int]]]:
        """The stream and the position of what is in each batch, if each is first taken back so many times."""
        waiting = queue()
        lengths = [[50] * 9, *[[9, 12, 7, 10, 8] * 3] * 3]
        streams = [request(*of_one, priority=BULK, in_order=in_order) for of_one in lengths]
        for stream in streams:
            waiting.add(stream)
        batches = []
        for _ in range(60):
            for _ in range(times):
                waiting.put_back(waiting.next_batch(BULK, 0.0), passed_over_since=0.0)
            batch = waiting.next_batch(BULK, 0.0)
            batches.append([(streams.index(item.request), item.index) for item in batch])
            for at, stream in enumerate(streams):
                if not stream.waiting:
                    streams[at] = request(*lengths[at], priority=BULK, in_order=in_order)
                    waiting.add(streams[at])
        return batches

    undisturbed = served(0)
    assert {stream for batch in undisturbed for stream, _ in batch} == {0, 1, 2, 3}
    assert served(recalls) == undisturbed


def test_who_only_filled_up_a_batch_that_is_put_back_overtakes_nobody() -> None:
    waiting = queue()
    head, between, filler, last = request(10), request(*[50] * 4), request(*[10] * 7), request(*[50] * 4)
    for one in (head, between, filler, last):
        waiting.add(one)
    batch = waiting.next_batch(INTERACTIVE, 0.0)
    assert owners(batch) == {head, filler}
    waiting.put_back(batch, passed_over_since=0.0)
    assert list(waiting.of_class(INTERACTIVE)) == [head, between, filler, last]


def test_batches_of_one_request_that_are_put_back_in_any_order_give_it_its_first_place() -> None:
    waiting = queue()
    first, second = request(*[50] * 6), request(*[50] * 6)
    waiting.add(first)
    waiting.add(second)
    batches = [waiting.next_batch(INTERACTIVE, 0.0) for _ in range(4)]
    assert [owners(batch) for batch in batches] == [{first}, {second}] * 2
    for at in (1, 2, 0, 3):
        waiting.put_back(batches[at], passed_over_since=0.0)
    assert list(waiting.of_class(INTERACTIVE)) == [first, second]
    assert [owners(waiting.next_batch(INTERACTIVE, 0.0)) for _ in range(4)] == [{first}, {second}] * 2


def test_what_was_put_back_is_in_its_old_place() -> None:
    waiting = queue()
    only = request(40, 40, 40, 40, in_order=True)
    waiting.add(only)
    waiting.put_back(waiting.next_batch(INTERACTIVE, 0.0), passed_over_since=0.0)
    assert list(only.waiting) == [0, 1, 2, 3]
    assert taken(waiting.next_batch(INTERACTIVE, 0.0), only) == [0, 1]


def test_what_nobody_wants_any_more_is_not_put_back() -> None:
    waiting = queue()
    gone, stays = request(10), request(10)
    waiting.add(gone)
    waiting.add(stays)
    batch = waiting.next_batch(INTERACTIVE, 0.0)
    end(waiting, gone)
    waiting.put_back(batch, passed_over_since=0.0)
    assert waiting.tokens == 10
    assert list(waiting.requests()) == [stays]


def test_what_is_withdrawn_is_gone_once() -> None:
    waiting = queue()
    gone, stays = request(10, 20), request(30)
    waiting.add(gone)
    waiting.add(stays)
    end(waiting, gone)
    end(waiting, gone)
    assert waiting.tokens == 30
    assert owners(waiting.next_batch(INTERACTIVE, 0.0)) == {stays}


def test_a_request_of_nothing_never_waits() -> None:
    waiting = queue()
    nothing = request()
    waiting.add(nothing)
    assert list(waiting.requests()) == []
    end(waiting, nothing)
    assert waiting.tokens == 0


def test_requests_past_their_deadline_or_closed_are_expired() -> None:
    waiting = queue()
    late, early, gone = request(10, deadline=5.0), request(10, deadline=7.0), request(10)
    for one in (late, early, gone):
        waiting.add(one)
    gone.closed = True
    assert waiting.expired(6.0) == [late, gone]


def test_a_class_is_passed_over_since_its_last_batch_or_since_something_waits() -> None:
    waiting = queue()
    assert waiting.passed_over_seconds(BULK, 1e9) == 0
    bulk = request(*[50] * 6, priority=BULK)
    waiting.add(bulk)
    now = time.monotonic()
    assert 9 < waiting.passed_over_seconds(BULK, now + 10) < 11
    waiting.next_batch(BULK, now + 10)
    assert waiting.passed_over_seconds(BULK, now + 13) == 3
    waiting.add(request(10, priority=BULK))
    assert waiting.passed_over_seconds(BULK, now + 14) == 4


def test_a_batch_that_is_put_back_does_not_count_as_served() -> None:
    """Or bulk work, taken back for every query that arrives, would never be overdue."""
    waiting = queue()
    waiting.add(request(10, priority=BULK))
    began = time.monotonic()
    waiting.put_back(waiting.next_batch(BULK, began + 10), passed_over_since=began)
    assert waiting.passed_over_seconds(BULK, began + 12) == 12


class Anything(RuleBasedStateMachine):
    """Whatever comes, goes and is put back: each sequence is in one place, and the count of tokens is what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.requests: list[Request] = []
        self.on_device: list[list[Item]] = []
        self.done: Counter[Request] = Counter()

    @rule(
        lengths=st.lists(st.integers(1, 120), max_size=12),
        priority=st.sampled_from(Priority),
        in_order=st.booleans(),
    )
    def add(self, lengths: list[int], priority: Priority, in_order: bool) -> None:
        self.requests.append(request(*lengths, priority=priority, in_order=in_order))
        self.queue.add(self.requests[-1])

    @rule(priority=st.sampled_from(Priority))
    def next_batch(self, priority: Priority) -> None:
        source = list(self.queue.of_class(priority))
        before = {one: list(one.waiting) for one in source}
        batch = self.queue.next_batch(priority, time.monotonic())
        assert bool(batch) == bool(source)
        if not batch:
            return
        assert len(set(batch)) == len(batch)
        assert source[0] in owners(batch), "the oldest is left out"
        longest = max(len(item.sequence) for item in batch)
        assert len(batch) == 1 or (longest * len(batch) <= BOUNDS.tokens and len(batch) <= BOUNDS.count)
        for one in owners(batch):
            assert one.priority is priority
            assert set(taken(batch, one)) <= set(before[one])
            if one.in_order:
                lengths = [len(one.sequences[index]) for index in before[one]]
                fit = fitting_prefix(lengths, costs=COSTS, bounds=BOUNDS)
                assert set(taken(batch, one)) <= set(before[one][:fit])
        self.on_device.append(batch)

    @precondition(lambda self: self.on_device)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        batch = self.on_device.pop(data.draw(st.integers(0, len(self.on_device) - 1)))
        self.queue.put_back(batch, passed_over_since=0.0)

    @precondition(lambda self: self.on_device)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        for item in self.on_device.pop(data.draw(st.integers(0, len(self.on_device) - 1))):
            self.done[item.request] += 1

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        end(self.queue, data.draw(st.sampled_from(self.requests)))

    @invariant()
    def tokens_are_what_waits(self) -> None:
        waiting = list(self.queue.requests())
        assert len(set(waiting)) == len(waiting)
        for priority in Priority:
            places = [one.place for one in self.queue.of_class(priority)]
            assert places == sorted(set(places))
        assert self.queue.tokens == sum(len(one.sequences[index]) for one in waiting for index in one.waiting)
        for one in self.requests:
            assert one.waiting_tokens == sum(len(one.sequences[index]) for index in one.waiting)
            assert (one in waiting) == bool(one.waiting)
            assert not (one.closed and one.waiting)

    @invariant()
    def every_sequence_is_in_one_place(self) -> None:
        running = Counter(item.request for batch in self.on_device for item in batch)
        for one in self.requests:
            if not one.closed:
                assert len(one.waiting) + running[one] + self.done[one] == len(one.sequences)
                assert len(set(one.waiting)) == len(one.waiting)


class TestAnything(Anything.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=60, stateful_step_count=40)
