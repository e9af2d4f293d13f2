"""What Compose reads from `.env` may be in a service's environment too, without being taken for a misspelt setting."""

from collections.abc import Callable

import pytest

from tests.unit.deploy.manifests import ROOT, SETTINGS
from winnow_rpc.settings import OF_COMPOSE, read_settings


def test_the_variables_of_compose_that_begin_as_a_services_own_are_known() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line and line[0] != "#"]
    mistakable = set()
    for variable in (line.partition("=")[0] for line in lines):
        for service, settings in SETTINGS.items():
            prefix = f"WINNOW_{service.upper()}_"
            name = variable.removeprefix(prefix).lower()
            if variable.startswith(prefix) and name not in settings.model_fields:
                mistakable.add(variable)
    assert mistakable == OF_COMPOSE


@pytest.mark.parametrize("written", [str.upper, str.lower])
@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_starts_with_all_of_them(
    service: str, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in OF_COMPOSE:
        monkeypatch.setenv(written(variable), "1")
    read_settings(SETTINGS[service], prefix=f"WINNOW_{service.upper()}_", program="test", argv=[])
