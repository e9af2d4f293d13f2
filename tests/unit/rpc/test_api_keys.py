"""API keys: what is kept, what is accepted, and what a file may do."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_rpc.api_keys import KeyRing, Scope, make_key, read_keys, write_keys
from winnow_rpc.reloading import Reloaded

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_key_is_found_by_its_token_and_by_nothing_like_it() -> None:
    key, token = make_key("web", scopes=[Scope.READ])
    other, _ = make_key("other", scopes=[Scope.READ])
    ring = KeyRing([key, other])
    assert ring.find(token) == key
    secret = token.removeprefix("winnow_web_")
    changed = ("B" if secret[0] == "A" else "A") + secret[1:]
    for wrong in ("", secret, f"winnow_other_{secret}", f"winnow_web_{changed}", f"{token}=", f" {token}", key.sha256):
        assert ring.find(wrong) is None


@given(st.text())
def test_no_text_is_a_key_by_chance(text: str) -> None:
    key, _ = make_key("web", scopes=[Scope.READ])
    assert KeyRing([key]).find(text) is None


def test_the_file_holds_no_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(0o644)
    key, token = make_key("web", scopes=[Scope.READ], collections=["a-*"], expires=NOW)
    write_keys(path, [key])
    assert token.removeprefix("winnow_web_") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == [key]
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    key, _ = make_key("web", scopes=[Scope.READ])
    write_keys(path, [key])

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_keys(path, [])
    assert read_keys(path) == [key]
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_a_key_expires_at_its_time() -> None:
    key, _ = make_key("web", scopes=[Scope.READ], expires=NOW)
    assert not key.expired(NOW - timedelta(seconds=1))
    assert key.expired(NOW)


@pytest.mark.parametrize(
    ("patterns", "name", "may"),
    [(("*",), "x", True), (("acme-*",), "acme-a", True), (("acme-*",), "acme", False), (("a", "b"), "b", True),
     (("acme-*",), "ACME-a", False), (("acme-*",), "", False)],
)  # fmt: skip
def test_patterns_say_which_collections_a_key_is_for(patterns: tuple[str, ...], name: str, may: bool) -> None:
    key, _ = make_key("k", scopes=[Scope.READ], collections=patterns)
    assert key.may_touch(name) is may


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"keys": [{"id": "x", "sha256": "hush"}]}', '{"version": 2}', '{"kees": []}',
     '{"keys": [{"id": "UPPER hush", "sha256": "", "scopes": ["read"], "created": "2026-01-01T00:00:00Z"}]}'],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"is no file of API keys") as caught:
        read_keys(path)
    assert "hush" not in str(caught.value)


def test_two_keys_of_one_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [make_key("web", scopes=[Scope.READ])[0], make_key("web", scopes=[Scope.READ])[0]])
    with pytest.raises(ValueError, match="more than one key"):
        read_keys(path)


def test_a_bad_id_is_refused() -> None:
    with pytest.raises(ValueError, match="id"):
        make_key("Not An Id", scopes=[Scope.READ])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_root_changes_stays_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [])
    os.chown(file, 10001, 10002)
    key, _ = make_key("one", scopes=[Scope.READ])
    write_keys(file, [key])
    found = file.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (10001, 10002, 0o600)


def test_a_file_that_is_made_readable_after_it_was_changed_is_read(tmp_path: Path) -> None:
    file, readable, now = tmp_path / "value", True, 0.0
    file.write_text("old")

    def read() -> str:
        if not readable:
            raise PermissionError("not for you")
        return file.read_text()

    value = Reloaded([file], read, what="a value", clock=lambda: now)
    file.write_text("newer")
    readable, now = False, 2.0
    assert value.current() == "old"
    file.chmod(0o640)
    readable, now = True, 4.0
    assert value.current() == "newer"
