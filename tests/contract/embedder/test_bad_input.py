"""Every refusal names the field and the limit, and harms nobody else."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.contract.embedder.served import Stub, serving
from tests.models.gated_engine import GatedEngine
from tests.models.tiny import build_bi_encoder
from winnow.embedder.v1 import embedder_pb2 as pb
from winnow_embedder.assembly import assemble
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel, open_bi_encoder
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


async def test_a_text_of_a_megabyte_without_a_space_is_cut_or_refused_as_asked(real: Stub) -> None:
    text = "é" * (512 * 1024)
    assert len((await real.EmbedTexts(request([text]), timeout=30)).vectors.data) == 384 * 4
    whole = request(["bread " * (1024 * 1024 // 6)], truncation_policy=pb.TRUNCATION_POLICY_REFUSE)
    fault = await refusal(real.EmbedTexts(whole, timeout=30))
    assert isinstance(fault, InvalidArgument)
    assert fault.reason == "TEXT_TOO_LONG"
    assert fault.metadata["max_token_count"] == "256"


ODD = [
    "\x00\x01\x02\x1b[31m\x7f\x85",
    "\ufffd\ufffe\uffff",
    "\u200b\u200d\ufeff",
    "\u202e abc \u2066",
    "한국어 текст עברית العربية 中文 ไทย हिन्दी 🙂👩‍👩‍👧 ｆｕｌｌ",
    "e" + "\u0301" * 1000,
    "[CLS] [SEP] [PAD] [MASK]",
    "\r\n\t a",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
]


async def test_control_characters_and_mixed_scripts_give_finite_vectors_of_length_one(real: Stub) -> None:
    response = await real.EmbedTexts(request(ODD), timeout=30)
    vectors = np.frombuffer(response.vectors.data, dtype="<f4").reshape(len(ODD), 384)
    # Float32 rounding of 384 squares.
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_ten_thousand_texts_are_refused_by_the_limit_or_embedded_under_a_higher_one(
    tiny: Stub, tiny_model: OpenModel[BiEncoderFacts]
) -> None:
    many = request(["bread"] * 10_000)
    fault = await refusal(tiny.EmbedTexts(many))
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == "texts"
    assert "1,024" in fault.message or "1024" in fault.message
    async with serving(tiny_model, max_text_count=10_000, max_queued_tokens=100_000) as (stub, _):
        assert (await stub.EmbedTexts(many, timeout=60)).vectors.count == 10_000
        fault = await refusal(stub.EmbedTexts(request(["one two three four five six seven eight nine"] * 10_000)))
        assert isinstance(fault, ResourceExhausted)
        assert fault.reason == "REQUEST_TOO_LARGE"
        assert fault.metadata == {"token_count": "110000", "max_queued_tokens": "100000"}
        await stub.EmbedTexts(request(["bread"]))


async def test_a_tokenizer_without_a_limit_is_cut_to_the_positions_of_its_model_and_that_is_reported(
    tmp_path: Path,
) -> None:
    folder = build_bi_encoder(tmp_path / "m", limit=24, tokenizer_limit=None)
    model = open_bi_encoder(EmbedderSettings(model=str(folder), device="cpu", engine="torch"))
    async with serving(model) as (stub, _):
        response = await stub.EmbedTexts(request(["bread " * 1000]))
    (cut,) = response.report.truncations
    assert (cut.kept_token_count, cut.dropped_token_count) == (22, 978)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"device": "cuda:63"}, "DEVICE_NOT_FOUND"),
        ({"device": "cuda:63", "engine": "openvino"}, "BAD_SETTING"),
        ({"device": "cuda:63", "dtype": "int8"}, "BAD_SETTING"),
        ({"model": "nothing"}, "MODEL_NOT_FOUND"),
        ({"model": "empty"}, "MODEL_NOT_FOUND"),
        ({"matryoshka_dimensions": (16,), "engine": "torch"}, "BAD_SETTING"),
    ],
)
async def test_a_service_that_cannot_be_is_one_fault(
    tiny_model: OpenModel[BiEncoderFacts], tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    model = str(tmp_path / given["model"]) if "model" in given else str(tiny_model.folder.path)
    with pytest.raises(Fault) as refused:
        await assemble(EmbedderSettings.model_validate({"device": "cpu", **given, "model": model}))
    assert refused.value.reason == reason
    assert "\n" not in refused.value.message


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
