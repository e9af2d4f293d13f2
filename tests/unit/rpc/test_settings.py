"""Settings: flags over environment over defaults, and one sentence when something is wrong."""

import pytest
from pydantic import Field, ValidationError

from winnow_rpc.faults import InvalidArgument
from winnow_rpc.settings import ServingSettings, read_settings


class ExampleSettings(ServingSettings):
    """An example."""

    depth: int = Field(default=100, ge=1)
    """How deep."""
    name: str | None = None
    """A name."""


def read(*argv: str) -> ExampleSettings:
    return read_settings(ExampleSettings, prefix="EXAMPLE_", program="example", argv=argv)


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = read()
    assert (settings.depth, settings.host, settings.name) == (100, "127.0.0.1", None)


def test_the_environment_overrides_defaults_and_flags_override_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_DEPTH", "7")
    monkeypatch.setenv("EXAMPLE_MAX_MESSAGE_BYTES", "100000")
    assert read().depth == 7
    settings = read("--depth", "9", "--name", "x", "--no-reflection")
    assert (settings.depth, settings.name, settings.reflection, settings.max_message_bytes) == (9, "x", False, 100000)


def test_settings_are_of_the_plain_class_and_cannot_be_changed() -> None:
    settings = read()
    assert type(settings) is ExampleSettings
    with pytest.raises(ValidationError):
        settings.depth = 3  # type: ignore[misc]


@pytest.mark.parametrize("argv", [["--depth", "0"], ["--depth", "many"], ["--port", "70000"]])
def test_a_bad_value_is_refused_by_flag_and_variable(argv: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(*argv)
    assert argv[0] in caught.value.message
    assert f"EXAMPLE_{argv[0][2:].upper()}" in caught.value.message
    assert "\n" not in caught.value.message


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="--bogus"):
        read("--bogus", "1")


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("EXAMPLE_DEHPT", "EXAMPLE_DEPTH"),
        ("EXAMPLE_TLS_CERTIFICAT", "EXAMPLE_TLS_CERTIFICATE"),
        ("EXAMPLE_ZZZZZ", "no setting"),
        ("EXAMPLE_DEPTH_NAME", "EXAMPLE_DEPTH"),
    ],
)
def test_a_variable_that_is_misspelt_is_refused_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(variable, "hush")
    with pytest.raises(InvalidArgument, match=said) as caught:
        read()
    assert variable in caught.value.message
    assert "hush" not in caught.value.message
    assert caught.value.reason == "BAD_SETTING"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EXAMPLE_SERVICE_HOST", "10.0.0.1"),
        ("EXAMPLE_HEADLESS_SERVICE_PORT_GRPC", "50050"),
        ("EXAMPLE_PORT_50050_TCP_ADDR", "10.0.0.1"),
        ("EXAMPLE_HEADLESS_PORT", "tcp://10.0.0.1:50050"),
        ("EXAMPLE_1_NAME", "/gateway/example-1"),
        ("EXAMPLE_1_ENV_PATH", "/usr/bin"),
        ("EXAMPLE_ENV_SERVICES", "of the image"),
        ("EXAMPLES", "of another program"),
        ("EXAMPLE", "of another program"),
    ],
)
def test_what_kubernetes_tells_a_container_of_its_neighbours_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert read().depth == 100


def test_a_variable_of_another_program_with_the_same_prefix_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEEP", "3")
    settings = read_settings(ExampleSettings, prefix="EXAMPLE_", program="example", argv=[], others=("keep",))
    assert settings.depth == 100


def test_help_shows_every_field_with_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        read("--help")
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "How deep." in shown
    assert "--drain-seconds" in shown
