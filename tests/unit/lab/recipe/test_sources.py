"""Where the shipped cross-encoder's training groups come from."""

from __future__ import annotations

import lzma
import random
from pathlib import Path

import pytest

from winnow_lab.data.beir import JudgedQuery
from winnow_lab.data.examples import JudgedSet, ScoredPair
from winnow_lab.recipe import sources
from winnow_lab.recipe.sources import Source
from winnow_rpc.faults import NotFound

PACKAGES = """Package: tea
Description-md5: 1
Description-en: timer for hot drinks
 Counts down while leaves are steeped and rings a bell when the cup is ready,
 for all kinds of leaves that are known to the authors of this program.
 .
 It has a window and a command line.

Package: tea-data
Description-md5: 2
Description-en: timer for hot drinks (data files)
 Counts down while leaves are steeped and rings a bell when the cup is ready,
 for all kinds of leaves that are known to the authors of this program.

Package: old
Description-md5: 3
Description-en: transitional dummy package for tea
 This package does nothing but bring another one, and may be removed once that is there, which it is
 after every upgrade that went as upgrades go.
"""

MEDICAL = """<?xml version="1.0"?><Document><QAPairs>
<QAPair pid="1"><Question>What is (are) hay fever ?</Question>
<Answer>An allergy to pollen, which makes people sneeze in spring and in summer, and their eyes water.</Answer></QAPair>
<QAPair pid="2"><Question>Who gets it ?</Question><Answer></Answer></QAPair>
</QAPairs></Document>
"""


def judged(count: int) -> Source:
    documents = {str(at): f"text {at}" for at in range(count)}
    queries = [JudgedQuery(f"q{at}", f"query {at}", {str(at): 1.0}) for at in range(count)]
    return Source(JudgedSet(source="made up", documents=documents, queries=queries))


@pytest.mark.parametrize("name", ["Translation-en", "Translation-en.xz"])
def test_a_package_is_found_by_its_line_and_once_for_its_program(tmp_path: Path, name: str) -> None:
    data = PACKAGES.encode()
    (tmp_path / name).write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    found = sources.packages(tmp_path / name).judged
    assert [query.text for query in found.queries] == ["timer for hot drinks"]
    (text,) = found.documents.values()
    assert text.startswith("Counts down while leaves are steeped and rings a bell when the cup is ready, for all")
    assert text.endswith("It has a window and a command line.")


def test_medical_questions_without_an_answer_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.xml").write_text(MEDICAL)
    found = sources.medical_questions(tmp_path).judged
    assert [query.text for query in found.queries] == ["What is (are) hay fever?"]


def test_a_folder_without_medical_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="MedQuAD"):
        sources.medical_questions(tmp_path)


def test_a_paraphrase_finds_its_other_half_and_is_not_its_own_negative() -> None:
    pairs = [ScoredPair("a man eats", "a man is eating", 0.9), ScoredPair("a cat", "a house", 0.1)]
    found = sources.paraphrases(pairs)
    (query,) = found.judged.queries
    assert {found.judged.documents[id_] for id_ in query.judgements} == {"a man eats", "a man is eating"}
    assert found.shown[query.id] == "a man is eating"
    assert len(found.judged.documents) == 4


def test_a_sentence_is_no_longer_in_the_passage_that_it_finds() -> None:
    text = "The first of them is a sentence here. The second one is as long as that. The third ends what is said."
    passages = JudgedSet(source="p", documents={"1": f"A title\n{text}", "2": "Too short."}, queries=[])
    found = sources.sentences(passages, random.Random(0))
    (query,) = found.judged.queries
    shown = found.shown[query.id]
    assert query.text in text
    assert query.text not in shown
    assert len(shown) < len(text)
    assert found.judged.documents["0"] == text


def test_functions_are_found_by_the_first_sentence_of_their_documentation() -> None:
    found = sources.functions(("winnow_relevance",)).judged
    by_text = {query.text: query for query in found.queries}
    assert found.queries
    for query in by_text.values():
        (id_,) = query.judgements
        assert found.documents[id_].startswith(("def ", "@", "async def "))
        assert query.text not in found.documents[id_]


def test_an_unknown_package_is_named() -> None:
    with pytest.raises(NotFound, match="no_such_package"):
        sources.functions(("no_such_package",))


def test_a_narrowed_source_keeps_only_queries_whose_answers_it_keeps() -> None:
    narrow = judged(50).narrowed(random.Random(1), documents=20).judged
    assert len(narrow.documents) == len(narrow.queries) == 20
    assert all(query.judgements.keys() <= narrow.documents.keys() for query in narrow.queries)
    fewer = judged(50).narrowed(random.Random(1), queries=7).judged
    assert (len(fewer.documents), len(fewer.queries)) == (50, 7)
