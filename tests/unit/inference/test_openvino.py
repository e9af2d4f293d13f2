"""The models that ship with Winnow, on OpenVINO in every number format, against sentence-transformers in float32."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from winnow_inference.engines.base import Engine
from winnow_inference.engines.openvino_planning import computes_bfloat16
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.models.loading import load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder, default_bi_encoder
from winnow_inference.opening import OpenModel, open_bi_encoder, open_cross_encoder
from winnow_inference.parity import LOSSLESS, compare_scores, compare_vectors
from winnow_inference.sample_texts import paragraphs
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer
from winnow_rpc.faults import FailedPrecondition

RERANKER = Path(__file__).parents[3] / "models" / "reranker"
PARAGRAPHS = paragraphs(64)
# From a word to more than the models read, in no order.
TEXTS = [*PARAGRAPHS[:20], "tea", "a", "how hot should the water be?", " ".join(PARAGRAPHS[:8]), "on tea"]
# Some passages answer, others have nothing to do with it: scores from nearly 0 to nearly 1.
PAIRS = [
    (PARAGRAPHS[at].split(". ")[0][:200], PARAGRAPHS[(at + step) % 64]) for at in range(0, 24) for step in (0, 1, 7)
]

FORMATS = [
    "float32",
    pytest.param("bfloat16", marks=pytest.mark.skipif(not computes_bfloat16(), reason="no bfloat16 here")),
    "int8",
]
# How far a component or a score may move with its neighbours. Filled up to a longer neighbour, a sequence is cut into
# other blocks, which are added up in another order; in fewer bits that order shows more, and int8 rounds what falls
# beside a step to another step. A sigmoid hides most of it near 0 and 1 and nothing in the middle. Measured here on a
# Zen 5, the worst of these texts and pairs in batches of 2 to 72: 1.8e-7, 6.0e-4 and 2.3e-3 in vectors, 8.9e-7, 1.1e-2
# and 1.8e-2 (int8: of the model before this one) in scores; beside its equals, without padding, nothing.
TOLERANCES = {
    ("bi", "float32"): 5e-7,
    ("bi", "bfloat16"): 1.8e-3,
    ("bi", "int8"): 6e-3,
    ("cross", "float32"): 2e-6,
    ("cross", "bfloat16"): 2.5e-2,
    ("cross", "int8"): 4e-2,
}

Opened = tuple[OpenModel[Any], Engine]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few texts as may be: each costs time."""
    file = tmp_path_factory.mktemp("calibration") / "texts.txt"
    file.write_text("\n".join(paragraphs(96)[64:]), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def settings(calibration: Path) -> Callable[..., InferenceSettings]:
    def make(dtype: str, **more: Any) -> InferenceSettings:
        # One thread: there is one way to lay it out, and so less to measure.
        given = {"device": "cpu", "threads": 1, "calibration_texts": calibration}
        return InferenceSettings.model_validate({**given, "dtype": dtype, **more})

    return make


def reranker() -> ModelFolder:
    return ModelFolder(path=RERANKER, id="models/reranker")


@pytest.fixture(scope="module")
def opened(settings: Callable[..., InferenceSettings]) -> Callable[[str, str], Opened]:
    made: dict[tuple[str, str], Opened] = {}

    def get(kind: str, dtype: str) -> Opened:
        if (kind, dtype) not in made:
            model: OpenModel[Any] = (
                open_bi_encoder(settings(dtype), apart=False)
                if kind == "bi"
                else open_cross_encoder(settings(dtype), default=reranker, apart=False)
            )
            made[kind, dtype] = model, model.make_engine()
        return made[kind, dtype]

    return get


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    """What sentence-transformers makes of the texts."""
    found: Matrix = load_bi_encoder(default_bi_encoder(), device="cpu").module.encode(TEXTS)
    return found


@pytest.fixture(scope="module")
def scores() -> Matrix:
    """What sentence-transformers makes of the pairs, [pairs, 1]."""
    found: Matrix = load_cross_encoder(reranker(), device="cpu").module.predict(PAIRS)[:, None]
    return found


def sequences(model: OpenModel[Any]) -> list[TokenSequence]:
    tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
    try:
        if isinstance(model.facts, BiEncoderFacts):
            return tokenizer.tokenize_texts(TEXTS).sequences
        return tokenizer.tokenize_pairs([pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]).sequences
    finally:
        tokenizer.close()


def computed(engine: Engine, batch: list[TokenSequence], lane: int = 0) -> Matrix:
    return engine.run(engine.prepare(batch), lane)


def in_batches(engine: Engine, batch: list[TokenSequence], size: int = 8) -> Matrix:
    return np.concatenate([computed(engine, batch[at : at + size]) for at in range(0, len(batch), size)])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_a_result_is_the_same_alone_in_a_batch_permuted_and_beside_its_equals(
    opened: Callable[[str, str], Opened], kind: str, dtype: str
) -> None:
    model, engine = opened(kind, dtype)
    batch, tolerance = sequences(model)[:25], TOLERANCES[kind, dtype]
    alone = in_batches(engine, batch, 1)
    order = np.random.default_rng(0).permutation(len(batch))
    np.testing.assert_allclose(computed(engine, batch), alone, rtol=0, atol=tolerance)
    np.testing.assert_allclose(in_batches(engine, batch, 4), alone, rtol=0, atol=tolerance)
    np.testing.assert_allclose(computed(engine, [batch[at] for at in order]), alone[order], rtol=0, atol=tolerance)
    for at in (0, 3, 22):
        np.testing.assert_allclose(computed(engine, [batch[at]] * 9), alone[[at] * 9], rtol=0, atol=tolerance)
    assert np.abs(alone - alone[0]).max() > 20 * tolerance, "all results are alike, so this test shows nothing"


@pytest.mark.parametrize("dtype", FORMATS)
def test_vectors_are_those_of_sentence_transformers(
    opened: Callable[[str, str], Opened],
    settings: Callable[..., InferenceSettings],
    vectors: Matrix,
    dtype: str,
) -> None:
    model, engine = opened("bi", dtype)
    least = compare_vectors(in_batches(engine, sequences(model)), vectors).least
    assert least >= (settings(dtype).int8_agreement if dtype == "int8" else LOSSLESS["cosine"])


@pytest.mark.parametrize("dtype", FORMATS)
def test_scores_put_pairs_in_the_order_of_predict(
    opened: Callable[[str, str], Opened],
    settings: Callable[..., InferenceSettings],
    scores: Matrix,
    dtype: str,
) -> None:
    assert scores.min() < 0.01
    assert scores.max() > 0.99
    # Near 1 a float32 tells log-odds apart by some thousandths only.
    told_apart = len(np.unique(scores))
    assert told_apart >= 0.95 * len(PAIRS), "predict itself has ties"
    model, engine = opened("cross", dtype)
    found = in_batches(engine, sequences(model))
    least = compare_scores(found, scores).least
    if dtype == "int8":
        assert least >= settings(dtype).int8_agreement
    else:
        assert least >= LOSSLESS["spearman"]
        assert len(np.unique(found)) >= 0.95 * told_apart, "scores that predict tells apart have become equal"


def test_float32_is_the_librarys_to_the_last_bits(
    opened: Callable[[str, str], Opened], vectors: Matrix, scores: Matrix
) -> None:
    # Other kernels than torch's, so another order of additions: measured 2e-7 and 5e-7.
    model, engine = opened("bi", "float32")
    np.testing.assert_allclose(in_batches(engine, sequences(model)), vectors, rtol=0, atol=6e-7)
    model, engine = opened("cross", "float32")
    np.testing.assert_allclose(in_batches(engine, sequences(model)), scores, rtol=0, atol=1.5e-6)


def test_lanes_compute_side_by_side_and_do_not_mix(opened: Callable[[str, str], Opened]) -> None:
    model, engine = opened("bi", "float32")
    assert (engine.lanes.count, engine.lanes.total) == (1, 2)
    batches = [sequences(model)[at : at + 4] for at in (0, 8)]
    expected = [computed(engine, batch) for batch in batches]
    wrong: list[int] = []

    def work(lane: int) -> None:
        for _ in range(15):
            if not np.array_equal(computed(engine, batches[lane], lane), expected[lane]):
                wrong.append(lane)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_result_stays_when_the_next_batch_has_run(opened: Callable[[str, str], Opened]) -> None:
    model, engine = opened("bi", "float32")
    first = computed(engine, sequences(model)[:2])
    kept = first.copy()
    computed(engine, sequences(model)[2:4])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_engine_says_what_it_is_why_and_how_close(opened: Callable[[str, str], Opened], dtype: str) -> None:
    _, engine = opened("bi", dtype)
    said = engine.description
    assert (said.name, said.device, said.dtype, said.threads, said.streams) == ("openvino", "cpu", dtype, 1, 1)
    assert said.reason.startswith("device cpu set; ")
    assert f"{dtype} " in said.reason
    assert " tokens/s" in said.reason
    assert "cosine to float32 " in said.reason
    assert "over 64 texts" in said.reason


def test_left_to_itself_it_takes_what_is_fastest_and_loses_nothing(
    settings: Callable[..., InferenceSettings], vectors: Matrix
) -> None:
    model = open_bi_encoder(settings("auto"), apart=False)
    engine = model.make_engine()
    assert engine.description.dtype in ("bfloat16", "float32")
    assert ("bfloat16" in engine.description.reason) == computes_bfloat16()
    assert compare_vectors(in_batches(engine, sequences(model)), vectors).least >= LOSSLESS["cosine"]


def test_int8_that_strays_too_far_is_refused_with_the_figures(settings: Callable[..., InferenceSettings]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        open_bi_encoder(settings("int8", int8_agreement=0.99999))
    fault = refused.value
    assert fault.reason == "INT8_PARITY"
    assert fault.metadata["measure"] == "cosine"
    assert 0.9 < float(fault.metadata["least"]) <= float(fault.metadata["mean"]) < 0.99999
    assert "0.99999 is wanted" in fault.message
    assert "calibration_texts" in fault.message
    with pytest.raises(FailedPrecondition) as refused:
        open_cross_encoder(settings("int8", int8_agreement=1.0), default=reranker)
    assert refused.value.metadata["measure"] == "spearman"
    open_bi_encoder(settings("int8", int8_agreement=0.9))


def test_number_formats_have_one_fingerprint(opened: Callable[[str, str], Opened]) -> None:
    expected = load_bi_encoder(default_bi_encoder(), device="cpu").facts
    for dtype in ("float32", "int8"):
        assert opened("bi", dtype)[0].facts == expected


AGAIN = """
import json, sys
from winnow_inference.opening import open_bi_encoder
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer
given, texts = json.load(sys.stdin)
model = open_bi_encoder(InferenceSettings.model_validate(given))
engine = model.make_engine()
tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
rows = engine.run(engine.prepare(tokenizer.tokenize_texts(texts).sequences), 0)
heavy = [name for name in ("torch", "transformers", "sentence_transformers", "nncf") if name in sys.modules]
json.dump([model.facts.fingerprint, rows.tolist(), heavy, engine.description.reason], sys.stdout)
"""


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_second_start_imports_no_torch_and_gives_the_same(
    opened: Callable[[str, str], Opened], settings: Callable[..., InferenceSettings], dtype: str
) -> None:
    model, engine = opened("bi", dtype)
    given = settings(dtype).model_dump(mode="json")
    ended = subprocess.run(
        [sys.executable, "-c", AGAIN],
        input=json.dumps([given, TEXTS[:4]]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    fingerprint, rows, heavy, reason = json.loads(ended.stdout.splitlines()[-1])
    assert heavy == []
    assert fingerprint == model.facts.fingerprint
    assert reason == engine.description.reason
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), computed(engine, sequences(model)[:4]))
