"""What comes back is what sentence-transformers gives, whatever a text is sent together with."""

import random
from typing import Any

import numpy as np

from tests.contract.embedder.served import Stub, serving
from winnow.embedder.v1 import embedder_pb2 as pb
from winnow.embedder.v1 import embedder_pb2_grpc as pb_grpc
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel

TEXT = "the river runs past a city of old stone houses under seven bridges to the sea where ships wait"
WORDS = TEXT.split()
DRAW = random.Random(5)
TEXTS = [" ".join(DRAW.choices(WORDS, k=count)) for count in (1, 2, 3, 5, 8, 8, 8, 13, 21, 34, 55, 89, 144, 233, 400)]

# float32 sums in another order: the padded width of a batch decides how a matrix product is blocked.
FLOAT32_TOLERANCE = 1e-5
# Half precision keeps 11 bits; components of a vector of length 1 are below 1.
FLOAT16_TOLERANCE = 5e-4

PASSAGE = pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE)


def matrix(batch: pb.VectorBatch) -> np.ndarray:
    dtype = {pb.VECTOR_DTYPE_FLOAT32: "<f4", pb.VECTOR_DTYPE_FLOAT16: "<f2"}[batch.dtype]
    return np.frombuffer(batch.data, dtype=dtype).reshape(batch.count, batch.dimension).astype(np.float32)


async def embed(stub: Stub, texts: list[str], options: pb.EmbedOptions = PASSAGE) -> np.ndarray:
    response = await stub.EmbedTexts(pb.EmbedTextsRequest(texts=texts, options=options), timeout=60)
    return matrix(response.vectors)


async def test_vectors_are_those_of_sentence_transformers(real: Stub, library: Any) -> None:
    ours, theirs = await embed(real, TEXTS), library.encode(TEXTS)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(ours, theirs, atol=FLOAT32_TOLERANCE)


async def test_a_text_gives_the_same_vector_alone_in_a_batch_permuted_and_beside_its_equals(real: Stub) -> None:
    texts = TEXTS[:-1]
    batch = await embed(real, texts)
    alone = np.concatenate([await embed(real, [text]) for text in texts])
    order = DRAW.sample(range(len(texts)), len(texts))
    permuted = np.empty_like(batch)
    permuted[order] = await embed(real, [texts[at] for at in order])
    equals = (await embed(real, [texts[6]] * 9))[4]
    for other in (alone, permuted):
        np.testing.assert_allclose(other, batch, atol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(equals, batch[6], atol=FLOAT32_TOLERANCE)


async def test_half_precision_vectors_are_the_same_vectors_rounded(real: Stub) -> None:
    half = pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE, dtype=pb.VECTOR_DTYPE_FLOAT16)
    response = await real.EmbedTexts(pb.EmbedTextsRequest(texts=TEXTS[:4], options=half))
    assert len(response.vectors.data) == 4 * 384 * 2
    np.testing.assert_allclose(matrix(response.vectors), await embed(real, TEXTS[:4]), atol=FLOAT16_TOLERANCE)


async def test_the_report_counts_tokens_cuts_and_time(
    real: Stub, real_model: OpenModel[BiEncoderFacts], library: Any
) -> None:
    response = await real.EmbedTexts(pb.EmbedTextsRequest(texts=TEXTS, options=PASSAGE))
    lengths = [len(ids) for ids in library.tokenizer(TEXTS, truncation=False)["input_ids"]]
    report = response.report
    assert report.token_count == sum(min(length, 256) for length in lengths)
    assert [(cut.index, cut.kept_token_count, cut.dropped_token_count) for cut in report.truncations] == [
        (index, 254, length - 256) for index, length in enumerate(lengths) if length > 256
    ]
    assert len(report.truncations) == 1
    assert report.model_fingerprint == real_model.facts.fingerprint
    assert report.timing.tokenize_micros > 0
    assert report.timing.inference_micros > 1000


async def test_tokens_are_counted_as_the_model_sees_them(real: Stub, library: Any) -> None:
    request = pb.CountTokensRequest(texts=[*TEXTS, ""], input_type=pb.INPUT_TYPE_QUERY)
    response = await real.CountTokens(request)
    tokenizer = library.tokenizer
    assert list(response.token_counts) == [
        len(ids) for ids in tokenizer([*TEXTS, ""], truncation=False, verbose=False)["input_ids"]
    ]
    assert response.max_token_count == 256


async def test_queries_and_passages_get_their_prompts(tiny: Stub, tiny_library: Any) -> None:
    texts = ["what is bread", "the city of paris"]
    query = pb.EmbedOptions(input_type=pb.INPUT_TYPE_QUERY)
    queries, passages = await embed(tiny, texts, query), await embed(tiny, texts)
    np.testing.assert_allclose(queries, tiny_library.encode_query(texts), atol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(passages, tiny_library.encode_document(texts), atol=FLOAT32_TOLERANCE)
    assert np.abs(queries - passages).max() > 0.01


async def test_the_beginning_can_be_cut_instead_of_the_end(tiny: Stub) -> None:
    text = "one " * 40 + "river sea"
    options = pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE, truncation_side=pb.TRUNCATION_SIDE_START)
    expected = await embed(tiny, ["one " * 28 + "river sea"])
    np.testing.assert_allclose(await embed(tiny, [text], options), expected, atol=FLOAT32_TOLERANCE)


async def test_shorter_vectors_are_the_first_components_at_length_one_again(
    tiny_model: OpenModel[BiEncoderFacts],
) -> None:
    options = pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE, dimensions=4)
    async with serving(tiny_model, matryoshka_dimensions=(4, 8)) as (stub, _):
        described = (await stub.GetModel(pb.GetModelRequest())).model
        whole, short = await embed(stub, ["bread", "cheese"]), await embed(stub, ["bread", "cheese"], options)
        same = await embed(stub, ["bread"], pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE, dimensions=16))
    assert list(described.matryoshka_dimensions) == [8, 4]
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(same, whole[:1], atol=FLOAT32_TOLERANCE)


async def test_the_model_is_described(real: Stub, real_model: OpenModel[BiEncoderFacts]) -> None:
    model = (await real.GetModel(pb.GetModelRequest())).model
    assert (model.id, model.revision, model.fingerprint) == ("all-MiniLM-L6-v2", "", real_model.facts.fingerprint)
    assert (model.dimension, model.max_token_count, model.normalized) == (384, 256, True)
    assert (model.query_prompt, model.passage_prompt, model.similarity) == ("", "", pb.SIMILARITY_COSINE)
    assert (model.engine.name, model.engine.device, model.engine.dtype) == ("openvino", "cpu", "float32")
    assert model.engine.thread_count > 0
    assert model.engine.stream_count > 0
    assert model.engine.reason
    assert model.limits.max_text_count == 1024
    assert model.limits.max_text_bytes == 2 * 1024 * 1024
    assert model.limits.max_message_bytes == 32 * 1024 * 1024
    assert model.limits.max_queued_tokens == 262_144


def test_every_method_of_the_contract_is_implemented() -> None:
    from winnow_embedder.servicer import EmbedderServicer

    methods = pb.DESCRIPTOR.services_by_name["EmbedderService"].methods_by_name
    assert all(
        getattr(EmbedderServicer, name) is not getattr(pb_grpc.EmbedderServiceServicer, name) for name in methods
    )
