from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from winnow_client import Document
from winnow_client.cli import stdlib_corpus
from winnow_client.cli.stdlib_corpus import clean, documents, is_boilerplate, stdlib_documents
from winnow_client.cli.stdlib_corpus_links import link

GATHER = Path(stdlib_corpus.__file__).with_name("stdlib_corpus_gather.py")


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    return {document.id: document for document in stdlib_documents()}


def record(**changes: str) -> dict[str, str]:
    made = {
        "name": "m.f",
        "module": "m",
        "kind": "function",
        "origin": "m",
        "signature": "(x)",
        "docstring": "Do it now.",
    }
    return made | changes


def test_the_library_is_several_thousand_documents(corpus: dict[str, Document]) -> None:
    assert 3000 < len(corpus) < 12_000
    assert {document.metadata["kind"] for document in corpus.values()} == {
        *("module", "class", "function", "method", "property"),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("asyncio.TaskGroup.create_task", "builtins.open", "builtins.str.join", "os.path.join", "socket.socket.recv"),
        *(
            "ipaddress.IPv4Network.hosts",
            "json.JSONDecoder",
            "random.random",
            "collections.abc.Mapping.get",
            "re.compile",
        ),
        *("pathlib.Path.glob", "multiprocessing.Pool", "subprocess.run", "itertools.chain", "unittest.mock.patch"),
    ],
)
def test_a_name_is_listed_under_its_home(corpus: dict[str, Document], name: str) -> None:
    assert f"py:{name}" in corpus


@pytest.mark.parametrize(
    "name",
    [
        *("asyncio.taskgroups.TaskGroup", "asyncio.tasks.Task", "posixpath.join", "io.open", "socket.SocketType.recv"),
        *("json.decoder.JSONDecoder", "random.Random.random", "os.error", "asyncio.TimeoutError"),
    ],
)
def test_a_name_is_not_listed_again_under_another(corpus: dict[str, Document], name: str) -> None:
    assert f"py:{name}" not in corpus


def test_a_class_that_explains_itself_where_it_is_initialized_is_listed_with_that(corpus: dict[str, Document]) -> None:
    assert "max_workers: The maximum number of processes" in corpus["py:concurrent.futures.ProcessPoolExecutor"].text


def test_an_override_with_the_docstring_of_what_it_overrides_is_left_out(corpus: dict[str, Document]) -> None:
    assert "py:asyncio.AbstractEventLoop.is_closed" in corpus
    assert "py:asyncio.BaseEventLoop.is_closed" not in corpus


def test_modules_that_do_something_when_imported_are_left_out(corpus: dict[str, Document]) -> None:
    tops = {str(document.metadata["module"]).partition(".")[0] for document in corpus.values()}
    assert not tops & {"antigravity", "this", "tkinter", "turtle", "turtledemo", "idlelib", "test"}
    assert not any(top.startswith("_") for top in tops)


def test_a_document_is_the_way_to_call_it_and_what_is_said_of_it(corpus: dict[str, Document]) -> None:
    document = corpus["py:heapq.heappush"]
    assert document.title == "heapq.heappush"
    assert document.text.startswith("heapq.heappush(heap, item, /)\n\nPush item onto heap")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert document.metadata == {
        "module": "heapq",
        "kind": "function",
        "link": f"https://docs.python.org/{version}/library/heapq.html#heapq.heappush",
    }


def test_every_document_can_be_ingested(corpus: dict[str, Document]) -> None:
    for document in corpus.values():
        assert 1 <= len(document.id.encode()) <= 512
        assert len(document.title.encode()) <= 4096
        assert document.text.strip()
        assert " at 0x" not in document.text.partition("\n")[0], "an address would change from run to run"


def test_the_library_is_gathered_in_the_same_order_with_the_same_words_every_time(corpus: dict[str, Document]) -> None:
    again = stdlib_documents()
    assert again == list(corpus.values())
    assert [document.id for document in again] == sorted(corpus)


def test_settings_of_the_caller_that_strip_docstrings_change_nothing(
    corpus: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    assert stdlib_documents() == list(corpus.values())


def test_progress_is_told_up_to_the_last_module() -> None:
    told: list[tuple[int, int]] = []
    stdlib_documents(lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 200


def test_a_module_that_cannot_be_imported_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "raises.py").write_text("raise RuntimeError")
    (tmp_path / "prints.py").write_text('"""Prints a lot."""\nprint("noise")')
    (tmp_path / "fine.py").write_text('"""A module that is fine."""\ndef go(x=object()):\n    """Go there at once."""')
    names = frozenset({"leaves", "raises", "prints", "fine", "missing"})
    code = (
        f"import runpy, sys; sys.stdlib_module_names = {names!r}; runpy.run_path({str(GATHER)!r}, run_name='__main__')"
    )
    ran = subprocess.run(  # noqa: PLW1510 - its status is asserted below
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 0
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    records = {line["record"]["name"]: line["record"] for line in lines if "record" in line}
    assert {"prints", "fine", "fine.go"} <= set(records)
    assert records["fine.go"]["signature"] == "(x=<object object>)"


def test_a_call_that_the_docstring_begins_with_is_not_written_twice() -> None:
    made = documents([record(docstring="m.f(x)\n\nDo it now.")], version="3.11")
    assert made[0].text == "m.f(x)\n\nDo it now."


def test_what_cannot_be_encoded_is_replaced() -> None:
    assert clean("a lone \ud800 surrogate\0") == "a lone ? surrogate"


@pytest.mark.parametrize(
    "docstring", ["", "Run.", "Alias for field number 3", "An enumeration.", "Point(x: int, y: int, name: str)"]
)
def test_boilerplate_is_left_out(docstring: str) -> None:
    assert is_boilerplate(docstring)
    assert documents([record(docstring=docstring)], version="3.11") == []


@pytest.mark.parametrize("docstring", ["Do it now.", "sin(x) is the sine of x.", "f(x)\n\nDo it now."])
def test_what_says_something_is_kept(docstring: str) -> None:
    assert not is_boilerplate(docstring)


@pytest.mark.parametrize(
    ("name", "module", "kind", "origin", "page"),
    [
        ("builtins.open", "builtins", "function", "io", "functions.html#open"),
        ("builtins.str.join", "builtins", "method", "builtins", "stdtypes.html#str.join"),
        ("builtins.KeyError", "builtins", "class", "builtins", "exceptions.html#KeyError"),
        ("json.JSONDecoder", "json", "class", "json.decoder", "json.html#json.JSONDecoder"),
        ("json.tool", "json.tool", "module", "json.tool", "json.html#module-json.tool"),
        ("asyncio.TaskGroup", "asyncio", "class", "asyncio.taskgroups", "asyncio-task.html#asyncio.TaskGroup"),
        ("asyncio", "asyncio", "module", "asyncio", "asyncio.html#module-asyncio"),
        (
            *("xml.etree.ElementTree.parse", "xml.etree.ElementTree", "function", "xml.etree.ElementTree"),
            "xml.etree.elementtree.html#xml.etree.ElementTree.parse",
        ),
        ("unittest.mock.patch", "unittest.mock", "function", "unittest.mock", "unittest.mock.html#unittest.mock.patch"),
        ("unittest.TestCase", "unittest", "class", "unittest.case", "unittest.html#unittest.TestCase"),
        (
            *("concurrent.futures.Future", "concurrent.futures", "class", "concurrent.futures._base"),
            "concurrent.futures.html#concurrent.futures.Future",
        ),
    ],
)
def test_a_link_leads_to_the_page_of_the_name(name: str, module: str, kind: str, origin: str, page: str) -> None:
    found = link(name, module=module, kind=kind, origin=origin, version="3.12")
    assert found == f"https://docs.python.org/3.12/library/{page}"


def test_nothing_of_the_environment_gets_into_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_TEST_PASSWORD", "correct-horse-battery")
    texts = [document.text for document in stdlib_documents()]
    assert len(texts) > 3000
    assert not any("correct-horse" in text or "WINNOW_TEST_PASSWORD" in text for text in texts)
