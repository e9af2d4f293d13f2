"""docs/configuration.md says what the settings in the code are."""

from __future__ import annotations

from docs.write_configuration import TARGET, contents


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == contents(), "`make docs` writes it anew"
