"""Every refusal names the field and the limit, and harms nobody else; a caller who goes takes its work along."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.contract.reranker.served import Stub, open_tiny, serving
from tests.models.gated_engine import GatedEngine
from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow.reranker.v1 import reranker_pb2 as pb
from winnow_inference.cross_encoder import CrossEncoder
from winnow_inference.engines.base import EngineLost
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.opening import OpenModel
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_reranker.assembly import assemble
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.faults import (
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from winnow_rpc.status import fault_from_rpc_error

REFUSE = pb.RerankOptions(truncation_policy=pb.TRUNCATION_POLICY_REFUSE)
DOCUMENT_ONLY = pb.RerankOptions(truncation_policy=pb.TRUNCATION_POLICY_DOCUMENT_ONLY)


def request(query: str = "bread", documents: list[str] | None = None, **more: Any) -> pb.RerankDocumentsRequest:
    return pb.RerankDocumentsRequest(query=query, documents=["cheese"] if documents is None else documents, **more)


async def refusal(call: Any) -> Fault:
    with pytest.raises(grpc.RpcError) as refused:
        await call
    return fault_from_rpc_error(refused.value)


@pytest.mark.parametrize(
    ("bad", "field", "says"),
    [
        (request(query=""), "query", "empty"),
        (request(query=" \n\u3000"), "query", "white space"),
        (request(query="é" * 101), "query", "202 bytes; at most 200"),
        (request(documents=[]), "documents", "1 to 4"),
        (request(documents=["a"] * 5), "documents", "at most 4"),
        (request(documents=["a", "é" * 101]), "documents[1]", "202 bytes; at most 200"),
        (request(top_count=-1), "top_count", "-1"),
        (request(options=pb.RerankOptions(truncation_policy=9)), "options.truncation_policy", "9"),
        (request(options=pb.RerankOptions(priority=9)), "options.priority", "9"),
        (request(documents=["one", "one " * 40], options=REFUSE), "documents[1]", "44 tokens"),
        (request(query="one " * 30, options=DOCUMENT_ONLY), "documents[0]", "no room"),
    ],
)
async def test_a_bad_request_is_refused_by_field_and_limit_also_as_a_stream(
    tiny_model: OpenModel[CrossEncoderFacts], bad: pb.RerankDocumentsRequest, field: str, says: str
) -> None:
    async with serving(tiny_model, max_document_count=4, max_text_bytes=200) as (stub, _):
        calls = [stub.RerankDocuments(bad)]
        if not bad.top_count:
            stream = pb.StreamRerankDocumentsRequest(query=bad.query, documents=bad.documents, options=bad.options)
            calls.append(anext(aiter(stub.StreamRerankDocuments(stream))))
        for call in calls:
            fault = await refusal(call)
            assert isinstance(fault, InvalidArgument)
            assert fault.violations[0].field == field
            assert says in fault.message
        await stub.RerankDocuments(request())


@pytest.mark.parametrize(
    ("pairs", "options", "field"),
    [
        ([], None, "pairs"),
        ([("a", "b")] * 5, None, "pairs"),
        ([("a", "b"), ("a" * 201, "b")], None, "pairs[1].first"),
        ([("a", "b"), ("a", "b" * 201)], None, "pairs[1].second"),
        ([("a", "b"), ("one " * 20, "two " * 20)], REFUSE, "pairs[1]"),
    ],
)
async def test_bad_pairs_are_refused_by_field(
    tiny_model: OpenModel[CrossEncoderFacts], pairs: list[tuple[str, str]], options: pb.RerankOptions | None, field: str
) -> None:
    async with serving(tiny_model, max_document_count=4, max_text_bytes=200) as (stub, _):
        bad = pb.ScorePairsRequest(pairs=[pb.TextPair(first=a, second=b) for a, b in pairs], options=options)
        fault = await refusal(stub.ScorePairs(bad))
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == field


async def test_another_model_than_the_one_expected_is_refused_and_both_are_named(
    tiny: Stub, tiny_model: OpenModel[CrossEncoderFacts]
) -> None:
    fault = await refusal(tiny.RerankDocuments(request(options=pb.RerankOptions(model_fingerprint="f" * 64))))
    assert isinstance(fault, FailedPrecondition)
    assert fault.metadata == {"expected": "f" * 64, "loaded": tiny_model.facts.fingerprint}


async def test_a_model_with_several_labels_scores_pairs_but_does_not_rerank(tmp_path: Path) -> None:
    folder = build_cross_encoder(tmp_path / "m", labels=["no", "yes"])
    model = open_tiny(folder)
    async with serving(model) as (stub, _):
        fault = await refusal(stub.RerankDocuments(request()))
        await stub.ScorePairs(pb.ScorePairsRequest(pairs=[pb.TextPair(first="bread", second="cheese")]))
    assert isinstance(fault, FailedPrecondition)
    assert fault.reason == "MODEL_CANNOT_RERANK"


@pytest.mark.parametrize("text", ["\x00\x01", "한국어 текст 🙂", "a" * 100_000, " "])
async def test_odd_documents_are_scored(tiny: Stub, text: str) -> None:
    response = await tiny.RerankDocuments(request(documents=["bread", text]))
    assert len(response.scores) == 2


async def test_labels_follow_the_model_also_where_there_are_several_and_a_stream_is_refused_too(tmp_path: Path) -> None:
    labels = ["contradiction", "entailment", "neutral"]
    model = open_tiny(build_cross_encoder(tmp_path / "m", labels=labels))
    async with serving(model) as (stub, _):
        stream = pb.StreamRerankDocumentsRequest(query="bread", documents=["cheese"])
        fault = await refusal(anext(aiter(stub.StreamRerankDocuments(stream))))
        pairs = [pb.TextPair(first="bread", second=text) for text in ("cheese", "", " ")]
        scores = (await stub.ScorePairs(pb.ScorePairsRequest(pairs=pairs))).scores
    assert fault.reason == "MODEL_CANNOT_RERANK"
    assert [len(score.label_scores) for score in scores] == [3, 3, 3]


async def test_a_megabyte_is_cut_and_reported_as_document_and_as_query(real: Stub) -> None:
    words = 1024 * 1024 // 6
    response = await real.RerankDocuments(request(documents=["bread " * words, "cheese"]), timeout=60)
    (cut,) = response.report.truncations
    assert (cut.index, cut.kept_token_count, cut.dropped_token_count) == (0, 509, words + 1 - 509)
    response = await real.RerankDocuments(request(query="bread " * words, documents=["cheese"]), timeout=60)
    (cut,) = response.report.truncations
    assert (cut.index, cut.kept_token_count, cut.dropped_token_count) == (0, 509, words + 1 - 509)
    fault = await refusal(real.RerankDocuments(request(query="bread " * words, options=DOCUMENT_ONLY), timeout=60))
    assert isinstance(fault, InvalidArgument)
    assert fault.reason == "NO_ROOM_FOR_DOCUMENT"


async def test_control_characters_and_mixed_scripts_give_scores_between_0_and_1(real: Stub) -> None:
    odd = [
        "\x00\x01\x1b[31m\x7f", "\ufffd\uffff", "\u200b\ufeff", "\u202e abc", "e" + "\u0301" * 1000, "[CLS] [SEP]",
        "한국어 текст עברית العربية 中文 ไทย 🙂👩‍👩‍👧", "", " \n",
    ]  # fmt: skip
    for query in ("bread", odd[0], odd[6]):
        scores = (await real.RerankDocuments(request(query=query, documents=odd), timeout=60)).scores
        assert sorted(score.index for score in scores) == list(range(len(odd)))
        assert all(0 <= score.score <= 1 for score in scores)


async def test_ten_thousand_documents_are_refused_by_the_limit_or_scored_under_a_higher_one(
    tiny: Stub, tiny_model: OpenModel[CrossEncoderFacts]
) -> None:
    many = request(documents=["cheese"] * 10_000)
    fault = await refusal(tiny.RerankDocuments(many))
    assert isinstance(fault, InvalidArgument)
    assert fault.violations[0].field == "documents"
    async with serving(tiny_model, max_document_count=10_000, max_queued_tokens=60_000) as (stub, _):
        assert len((await stub.RerankDocuments(many, timeout=60)).scores) == 10_000
        fault = await refusal(stub.RerankDocuments(request(documents=["one two three four"] * 10_000)))
        assert isinstance(fault, ResourceExhausted)
        assert fault.reason == "REQUEST_TOO_LARGE"
        await stub.RerankDocuments(request())


async def test_of_many_requests_at_once_those_are_refused_that_would_find_no_room_once_they_are_tokenized(
    tiny_model: OpenModel[CrossEncoderFacts],
) -> None:
    encoder = CrossEncoder(tiny_model, RunnerLimits(max_batch_tokens=1_000, max_queued_tokens=300))
    await encoder.start()
    held = threading.Event()
    encoder._tokenizer._long.submit(held.wait, 10)  # so that all of them wait to be tokenized

    tasks = [asyncio.create_task(encoder.score(["bread"], ["cheese and bread"] * 10)) for _ in range(30)]
    try:
        for _ in range(5):
            await asyncio.sleep(0)
        refused = [task.exception() for task in tasks if task.done()]
        assert 20 < len(refused) < 30, "before any of them was tokenized"
        assert {fault.reason for fault in refused if isinstance(fault, ResourceExhausted)} == {"QUEUE_FULL"}
        held.set()
        assert {len((await task).indexes) for task in tasks if not task.done()} == {10}
    finally:
        held.set()
        await encoder.close()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"device": "cuda:63"}, "DEVICE_NOT_FOUND"),
        ({"device": "cuda:63", "engine": "openvino"}, "BAD_SETTING"),
        ({"engine": "torch", "dtype": "int8"}, "BAD_SETTING"),
        ({"model": "nothing"}, "MODEL_NOT_FOUND"),
        ({"model": "empty"}, "MODEL_NOT_FOUND"),
        ({"model": "no head"}, "MODEL_UNREADABLE"),
    ],
)
async def test_a_service_that_cannot_be_is_one_fault(
    tiny_model: OpenModel[CrossEncoderFacts], tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    if given.get("model") == "no head":
        build_bi_encoder(tmp_path / "no head")
    model = str(tmp_path / given["model"]) if "model" in given else str(tiny_model.folder.path)
    with pytest.raises(Fault) as refused:
        await assemble(RerankerSettings.model_validate({"device": "cpu", **given, "model": model}))
    assert refused.value.reason == reason
    assert "\n" not in refused.value.message


async def test_a_cancelled_stream_drops_what_has_not_begun(tiny_model: OpenModel[CrossEncoderFacts]) -> None:
    engine = GatedEngine(1)
    async with serving(tiny_model, engine=engine, max_batch_tokens=50) as (stub, _):
        documents = ["cheese"] * 500
        call = stub.StreamRerankDocuments(pb.StreamRerankDocumentsRequest(query="bread", documents=documents))
        first = await call.read()
        assert len(first.scores) == 10
        engine.gate.clear()
        call.cancel()
        await asyncio.sleep(0.3)
        reached = engine.sequences
        engine.gate.set()
        await stub.RerankDocuments(request(), timeout=5)
        assert engine.sequences == reached + 1
        assert reached < 500


async def test_a_deadline_in_the_middle_ends_the_call_and_the_work(tiny_model: OpenModel[CrossEncoderFacts]) -> None:
    engine = GatedEngine(1)
    async with serving(tiny_model, engine=engine, max_batch_tokens=50) as (stub, _):
        engine.gate.clear()
        fault = await refusal(stub.RerankDocuments(request(documents=["cheese"] * 100), timeout=0.2))
        assert isinstance(fault, DeadlineExceeded)
        engine.gate.set()
        await stub.RerankDocuments(request(), timeout=5)
        assert engine.sequences <= 11


async def test_a_lost_engine_is_unavailable_and_health_follows_it_down_and_up(
    tiny_model: OpenModel[CrossEncoderFacts],
) -> None:
    engine = GatedEngine(1)

    def lose() -> None:
        raise EngineLost("gone")

    async with serving(tiny_model, engine=engine, probe_seconds=0.05) as (stub, channel):
        watching = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="winnow.reranker.v1.RerankerService"), timeout=10
        )
        seen = []
        async for health in watching:
            seen.append(health.status)
            if len(seen) == 1:
                engine.fail = lose
                fault = await refusal(stub.RerankDocuments(request()))
                assert isinstance(fault, Unavailable)
                assert fault.retry_after is not None
            elif len(seen) == 2:
                engine.fail = lambda: None
            else:
                break
        watching.cancel()
        status = health_pb2.HealthCheckResponse
        assert seen == [status.SERVING, status.NOT_SERVING, status.SERVING]
        await stub.RerankDocuments(request())
