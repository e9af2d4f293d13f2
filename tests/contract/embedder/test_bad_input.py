"""Every refusal names the field and the limit, and harms nobody else."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.contract.embedder.served import Stub, serving
from tests.models.gated_engine import GatedEngine
from winnow.embedder.v1 import embedder_pb2 as pb
from winnow_inference.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel
from winnow_rpc.faults import DeadlineExceeded, FailedPrecondition, Fault, InvalidArgument, ResourceExhausted
from winnow_rpc.status import fault_from_rpc_error

PASSAGE = pb.INPUT_TYPE_PASSAGE


def request(texts: list[str], **options: Any) -> pb.EmbedTextsRequest:
    return pb.EmbedTextsRequest(texts=texts, options=pb.EmbedOptions(**{"input_type": PASSAGE, **options}))


async def refusal(call: Any) -> Fault:
    with pytest.raises(grpc.RpcError) as refused:
        await call
    return fault_from_rpc_error(refused.value)


@pytest.mark.parametrize(
    ("bad", "field", "says"),
    [
        (request([]), "texts", "1 to 4"),
        (request(["a"] * 5), "texts", "at most 4"),
        (request(["bread", ""]), "texts[1]", "empty"),
        (request(["bread", " \t\n\u00a0\u3000"]), "texts[1]", "white space"),
        (request(["bread", "é" * 101]), "texts[1]", "202 bytes; at most 200"),
        (pb.EmbedTextsRequest(texts=["bread"]), "options", "input_type"),
        (request(["bread"], input_type=pb.INPUT_TYPE_UNSPECIFIED), "options.input_type", "INPUT_TYPE_QUERY"),
        (request(["bread"], input_type=9), "options.input_type", "9"),
        (request(["bread"], truncation_policy=9), "options.truncation_policy", "9"),
        (request(["bread"], truncation_side=9), "options.truncation_side", "9"),
        (request(["bread"], dtype=9), "options.dtype", "9"),
        (request(["bread"], priority=9), "options.priority", "9"),
        (request(["bread"], dimensions=8), "options.dimensions", "16 alone"),
        (request(["bread"], dimensions=-1), "options.dimensions", "16 alone"),
        (request(["one " * 31], truncation_policy=pb.TRUNCATION_POLICY_REFUSE), "texts[0]", "33 tokens"),
    ],
)
async def test_a_bad_request_is_refused_by_field_and_limit(
    tiny_model: OpenModel[BiEncoderFacts], bad: pb.EmbedTextsRequest, field: str, says: str
) -> None:
    async with serving(tiny_model, max_text_count=4, max_text_bytes=200) as (stub, _):
        fault = await refusal(stub.EmbedTexts(bad))
        assert isinstance(fault, InvalidArgument)
        assert fault.violations[0].field == field
        assert says in fault.message
        await stub.EmbedTexts(request(["bread"]))


async def test_every_bad_text_is_named_up_to_a_bound(tiny: Stub) -> None:
    fault = await refusal(tiny.EmbedTexts(request(["", "bread", " "])))
    assert isinstance(fault, InvalidArgument)
    assert [violation.field for violation in fault.violations] == ["texts[0]", "texts[2]"]
    fault = await refusal(tiny.EmbedTexts(request([""] * 1000)))
    assert isinstance(fault, InvalidArgument)
    assert len(fault.violations) == 20


async def test_texts_at_the_limits_are_accepted(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    async with serving(tiny_model, max_text_count=4, max_text_bytes=200) as (stub, _):
        response = await stub.EmbedTexts(request(["é" * 100] * 4))
    assert response.vectors.count == 4


@pytest.mark.parametrize("text", ["\x00\x01\x02", "\ufffd", "한국어 текст עברית 中文 🙂", "a" * 100_000, "\u202e abc"])
async def test_odd_texts_are_embedded(tiny: Stub, text: str) -> None:
    response = await tiny.EmbedTexts(request([text]))
    assert response.vectors.count == 1


async def test_a_text_of_a_megabyte_is_cut_and_reported(real: Stub) -> None:
    response = await real.EmbedTexts(request(["bread " * (1024 * 1024 // 6)]), timeout=30)
    (cut,) = response.report.truncations
    assert (cut.kept_token_count, cut.dropped_token_count) == (254, 1024 * 1024 // 6 - 254)


async def test_another_model_than_the_one_expected_is_refused_and_both_are_named(
    tiny: Stub, tiny_model: OpenModel[BiEncoderFacts]
) -> None:
    fault = await refusal(tiny.EmbedTexts(request(["bread"], model_fingerprint="f" * 64)))
    assert isinstance(fault, FailedPrecondition)
    assert fault.metadata == {"expected": "f" * 64, "loaded": tiny_model.facts.fingerprint}
    assert "f" * 64 in fault.message
    assert tiny_model.facts.fingerprint in fault.message
    await tiny.EmbedTexts(request(["bread"], model_fingerprint=tiny_model.facts.fingerprint))


async def test_a_full_queue_is_refused_with_the_time_to_come_back(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)
    async with serving(tiny_model, engine=engine, max_queued_tokens=100) as (stub, _):
        engine.gate.clear()
        calls = [asyncio.ensure_future(stub.EmbedTexts(request(["bread"])))]
        await asyncio.to_thread(engine.began.acquire)
        calls += [asyncio.ensure_future(stub.EmbedTexts(request(["bread"] * 30))) for _ in range(4)]
        done, waiting = await asyncio.wait(calls[1:], return_when=asyncio.FIRST_COMPLETED, timeout=5)
        fault = await refusal(next(iter(done)))
        assert isinstance(fault, ResourceExhausted)
        assert fault.retry_after is not None
        engine.gate.set()
        await asyncio.gather(calls[0], *waiting, return_exceptions=True)


async def test_a_deadline_that_passes_in_the_queue_drops_the_work(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)
    async with serving(tiny_model, engine=engine) as (stub, _):
        engine.gate.clear()
        blocker = asyncio.ensure_future(stub.EmbedTexts(request(["bread"])))
        await asyncio.to_thread(engine.began.acquire)
        fault = await refusal(stub.EmbedTexts(request(["cheese"] * 5), timeout=0.1))
        assert isinstance(fault, DeadlineExceeded)
        await asyncio.sleep(0.1)
        engine.gate.set()
        await blocker
        await stub.EmbedTexts(request(["music"]))
        assert engine.sequences == 2  # the blocker and the last


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (pb.CountTokensRequest(texts=[], input_type=PASSAGE), "texts"),
        (pb.CountTokensRequest(texts=["bread"]), "input_type"),
        (pb.CountTokensRequest(texts=["a" * 3_000_000], input_type=PASSAGE), "texts[0]"),
    ],
)
async def test_counting_has_the_same_limits(tiny: Stub, bad: pb.CountTokensRequest, field: str) -> None:
    fault = await refusal(tiny.CountTokens(bad))
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == field
