"""Scores are those of CrossEncoder.predict, whatever a document is sent together with."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from tests.contract.reranker.served import Stub, open_tiny, serving
from tests.models.tiny import build_cross_encoder
from winnow.reranker.v1 import reranker_pb2 as pb
from winnow.reranker.v1 import reranker_pb2_grpc as pb_grpc
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.models.loading import load_cross_encoder
from winnow_inference.opening import OpenModel
from winnow_rpc.faults import FailedPrecondition

QUERY = "which river runs through the capital of france"
TEXT = "the river runs past a city of old stone houses under seven bridges to the sea where ships wait"
WORDS = TEXT.split()
DRAW = random.Random(5)
DOCUMENTS = [
    "",
    "The Seine runs through Paris, the capital of France.",
    "Bread is made of flour, water and salt.",
    "Berlin lies on the Spree.",
    *(" ".join(DRAW.choices(WORDS, k=count)) for count in (1, 5, 8, 8, 13, 34, 89, 233, 700)),
]

# float32 sums in another order, after a sigmoid: the padded width of a batch decides how a product is blocked.
TOLERANCE = 1e-4


async def rerank(stub: Stub, documents: list[str], **more: int) -> np.ndarray:
    """Scores in the order of the documents."""
    response = await stub.RerankDocuments(
        pb.RerankDocumentsRequest(query=QUERY, documents=documents, **more), timeout=60
    )
    scores = np.full(len(documents), np.nan)
    for document in response.scores:
        scores[document.index] = document.score
    return scores


async def test_scores_are_those_of_the_library(real: Stub, library: Any) -> None:
    expected = library.predict([(QUERY, document) for document in DOCUMENTS])
    np.testing.assert_allclose(await rerank(real, DOCUMENTS), expected, atol=TOLERANCE)
    assert expected.argmax() == 1  # the question is answered by that document


async def test_a_document_scores_the_same_alone_among_others_permuted_and_beside_its_equals(real: Stub) -> None:
    documents = DOCUMENTS[:-1]
    together = await rerank(real, documents)
    alone = np.concatenate([await rerank(real, [document]) for document in documents])
    order = DRAW.sample(range(len(documents)), len(documents))
    permuted = np.empty_like(together)
    permuted[order] = await rerank(real, [documents[at] for at in order])
    np.testing.assert_allclose(alone, together, atol=TOLERANCE)
    np.testing.assert_allclose(permuted, together, atol=TOLERANCE)
    np.testing.assert_allclose(await rerank(real, [documents[8]] * 5), [together[8]] * 5, atol=TOLERANCE)


async def test_the_best_come_first_equals_by_index_and_only_as_many_as_asked(tiny: Stub) -> None:
    documents = ["bread", "cheese", "bread", "river sea", "bread", "music"]
    request = pb.RerankDocumentsRequest(query="what is bread", documents=documents)
    ranked = (await tiny.RerankDocuments(request)).scores
    assert [(-one.score, one.index) for one in ranked] == sorted((-one.score, one.index) for one in ranked)
    assert sorted(one.index for one in ranked) == list(range(6))
    assert not any(one.HasField("probability") for one in ranked)
    for top in (1, 3, 6, 99):
        request.top_count = top
        best = (await tiny.RerankDocuments(request)).scores
        # Another call may be batched otherwise, and then rounds otherwise.
        assert [one.score for one in best] == pytest.approx([one.score for one in ranked[:top]], abs=TOLERANCE)


async def test_a_stream_gives_every_document_once_the_first_ones_first_with_the_same_scores(real: Stub) -> None:
    documents = DOCUMENTS * 2
    request = pb.StreamRerankDocumentsRequest(query=QUERY, documents=documents)
    parts = [part async for part in real.StreamRerankDocuments(request, timeout=60)]
    assert len(parts) > 3
    indexes = [one.index for part in parts for one in part.scores]
    assert sorted(indexes) == list(range(len(documents)))
    # Two batches run side by side, and within one batch's worth the shorter may overtake; the halves never mix.
    assert 0 in [one.index for part in parts[:2] for one in part.scores]
    assert max(indexes[:6]) < len(DOCUMENTS)
    scores = {one.index: one.score for part in parts for one in part.scores}
    np.testing.assert_allclose(
        [scores[index] for index in range(len(documents))], await rerank(real, documents), atol=TOLERANCE
    )
    whole = (await real.RerankDocuments(pb.RerankDocumentsRequest(query=QUERY, documents=documents))).report
    assert sum(part.report.token_count for part in parts) == whole.token_count
    assert sorted(cut.index for part in parts for cut in part.report.truncations) == [12, 25]


async def test_the_report_counts_tokens_cuts_and_time(
    real: Stub, real_model: OpenModel[CrossEncoderFacts], library: Any
) -> None:
    report = (await real.RerankDocuments(pb.RerankDocumentsRequest(query=QUERY, documents=DOCUMENTS))).report
    tokenizer = library.tokenizer
    lengths = [len(tokenizer([QUERY], [document], truncation=False)["input_ids"][0]) for document in DOCUMENTS]
    assert report.token_count == sum(min(length, 512) for length in lengths)
    assert [(cut.index, cut.kept_token_count, cut.dropped_token_count) for cut in report.truncations] == [
        (12, 509, lengths[12] - 512)
    ]
    assert report.model_fingerprint == real_model.facts.fingerprint
    assert report.timing.inference_micros > 1000


async def test_the_document_alone_is_cut_where_that_is_asked(tiny: Stub) -> None:
    query, document = " ".join(["one"] * 20), " ".join(["two"] * 20)
    options = pb.RerankOptions(truncation_policy=pb.TRUNCATION_POLICY_DOCUMENT_ONLY)
    request = pb.RerankDocumentsRequest(query=query, documents=[document], options=options)
    cut = await tiny.RerankDocuments(request)
    assert cut.report.token_count == 32
    request.documents[0] = " ".join(["two"] * 9)
    assert (await tiny.RerankDocuments(request)).scores[0].score == pytest.approx(cut.scores[0].score, abs=TOLERANCE)


async def test_pairs_are_scored_in_their_order_with_every_label(tmp_path: Path) -> None:
    labels = ["contradiction", "entailment", "neutral"]
    folder = build_cross_encoder(tmp_path / "m", labels=labels)
    model = open_tiny(folder)
    pairs = [("bread", "cheese"), ("", ""), ("the city of paris", "what is a river in france"), ("one", "two three")]
    async with serving(model) as (stub, _):
        described = (await stub.GetModel(pb.GetModelRequest())).model
        response = await stub.ScorePairs(
            pb.ScorePairsRequest(pairs=[pb.TextPair(first=first, second=second) for first, second in pairs])
        )
    assert list(described.labels) == labels
    found = np.array([list(score.label_scores) for score in response.scores])
    np.testing.assert_allclose(
        found, load_cross_encoder(model.folder, device="cpu").module.predict(pairs), atol=TOLERANCE
    )
    assert found.shape == (4, 3)


async def test_pairs_of_a_plain_reranker_have_one_score_each(tiny: Stub, tiny_library: Any) -> None:
    pairs = [("bread", "cheese"), ("river", "sea")]
    response = await tiny.ScorePairs(
        pb.ScorePairsRequest(pairs=[pb.TextPair(first=first, second=second) for first, second in pairs])
    )
    found = [list(score.label_scores) for score in response.scores]
    np.testing.assert_allclose(np.ravel(found), tiny_library.predict(pairs), atol=TOLERANCE)


async def test_the_model_is_described(real: Stub, real_model: OpenModel[CrossEncoderFacts]) -> None:
    model = (await real.GetModel(pb.GetModelRequest())).model
    assert (model.id, model.fingerprint) == ("models/reranker", real_model.facts.fingerprint)
    assert (model.max_token_count, list(model.labels), model.activation) == (512, ["LABEL_0"], "sigmoid")
    assert model.HasField("recommended_mixing") == (real_model.learned.mixing is not None)
    assert (model.engine.name, model.engine.device, model.engine.dtype) == ("openvino", "cpu", "float32")
    assert model.limits.max_document_count == 1000
    assert model.limits.max_queued_tokens == 262_144
    assert model.calibrated == (real_model.learned.calibration is not None)


async def test_mixing_stored_with_the_model_is_recommended(tmp_path: Path) -> None:
    folder = build_cross_encoder(tmp_path / "m")
    stored = {"k": 10, "retrieval_weight": 1.0, "rerank_weight": 2.5}
    (folder / "winnow.json").write_text(json.dumps({"mixing": stored}))
    model = open_tiny(folder)
    async with serving(model) as (stub, _):
        mixing = (await stub.GetModel(pb.GetModelRequest())).model.recommended_mixing
    assert (mixing.k, mixing.retrieval_weight, mixing.rerank_weight) == (10, 1, 2.5)


async def test_what_was_learned_of_the_scores_is_recommended(tmp_path: Path) -> None:
    folder = build_cross_encoder(tmp_path / "m")
    hybrid, dense = {"rerank": 0.5, "lexical": 0.25, "dense_absent": -1.0}, {"rerank_sigmoid": 2.0}
    (folder / "winnow.json").write_text(json.dumps({"score_mixings": {"hybrid": hybrid, "dense": dense}}))
    async with serving(open_tiny(folder)) as (stub, _):
        model = (await stub.GetModel(pb.GetModelRequest())).model
    assert model.recommended_score_mixings == pb.ScoreMixings(
        hybrid=pb.ScoreMixing(**hybrid), dense=pb.ScoreMixing(**dense)
    )
    assert not model.HasField("recommended_mixing")


async def test_a_calibrated_model_says_how_probable_relevance_is(tmp_path: Path, tiny_library: Any) -> None:
    folder = build_cross_encoder(tmp_path / "m")
    (folder / "winnow.json").write_text(json.dumps({"calibration": {"method": "platt", "scale": 2, "bias": -1}}))
    async with serving(open_tiny(folder)) as (stub, _):
        assert (await stub.GetModel(pb.GetModelRequest())).model.calibrated
        request = {"query": QUERY, "documents": DOCUMENTS}
        whole = await stub.RerankDocuments(pb.RerankDocumentsRequest(**request))
        stream = [part async for part in stub.StreamRerankDocuments(pb.StreamRerankDocumentsRequest(**request))]
        pairs = [pb.TextPair(first=QUERY, second=document) for document in DOCUMENTS]
        paired = await stub.ScorePairs(pb.ScorePairsRequest(pairs=pairs))
    scores = np.array(tiny_library.predict([(QUERY, document) for document in DOCUMENTS]), dtype=np.float64)
    expected = 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) - 1)))
    for found in (whole.scores, [score for part in stream for score in part.scores]):
        by_index = {score.index: score.probability for score in found}
        assert [by_index[at] for at in range(len(DOCUMENTS))] == pytest.approx(expected, abs=10 * TOLERANCE)
    assert [score.probability for score in paired.scores] == pytest.approx(expected, abs=10 * TOLERANCE)


async def test_a_model_without_a_calibration_gives_no_probability(tiny: Stub) -> None:
    response = await tiny.RerankDocuments(pb.RerankDocumentsRequest(query=QUERY, documents=["bread", "river"]))
    assert not any(score.HasField("probability") for score in response.scores)
    paired = await tiny.ScorePairs(pb.ScorePairsRequest(pairs=[pb.TextPair(first="a", second="b")]))
    assert not paired.scores[0].HasField("probability")


@pytest.mark.parametrize("same", [True, False])
def test_what_was_learned_with_another_model_is_said_to_be(tmp_path: Path, same: bool) -> None:
    folder = build_cross_encoder(tmp_path / "m")
    fingerprint = open_tiny(folder).facts.fingerprint if same else "0" * 64
    (folder / "winnow.json").write_text(json.dumps({"learned": {"model_fingerprint": fingerprint}}))
    with structlog.testing.capture_logs() as logs:
        opened = open_tiny(folder)
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == (0 if same else 1)
    assert opened.learned.model_fingerprint == fingerprint
    assert all(fingerprint.startswith(entry["learned_with"]) for entry in warnings)


def test_a_calibration_of_a_model_with_several_labels_is_refused(tmp_path: Path) -> None:
    folder = build_cross_encoder(tmp_path / "m", labels=["no", "maybe", "yes"])
    (folder / "winnow.json").write_text(json.dumps({"calibration": {"method": "platt", "scale": 2}}))
    with pytest.raises(FailedPrecondition, match="3 labels"):
        open_tiny(folder)


def test_every_method_of_the_contract_is_implemented() -> None:
    from winnow_reranker.servicer import RerankerServicer

    methods = pb.DESCRIPTOR.services_by_name["RerankerService"].methods_by_name
    assert all(
        getattr(RerankerServicer, name) is not getattr(pb_grpc.RerankerServiceServicer, name) for name in methods
    )
