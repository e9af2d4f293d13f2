"""Which engine is chosen and why, and what does not go together; what is said of a model that may not be read."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow_inference import machine
from winnow_inference.models.locating import default_bi_encoder
from winnow_inference.opening import choose_engine, open_bi_encoder, open_cross_encoder
from winnow_inference.settings import InferenceSettings
from winnow_rpc.faults import FailedPrecondition


def settings(**given: str) -> InferenceSettings:
    return InferenceSettings.model_validate(given)


@pytest.fixture(params=["no GPU", "GPU", "GPU, torch for CPUs"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine of each kind: what it has is asked of the driver, and no test may bring its own."""
    monkeypatch.setattr(machine, "nvidia_device_count", lambda: int(request.param != "no GPU"))
    monkeypatch.setattr(machine, "torch_is_built_for_gpus", lambda: request.param == "GPU")
    return str(request.param)


@pytest.mark.parametrize(
    ("given", "engine", "why"),
    [
        ({"device": "cpu"}, "openvino", "device cpu set"),
        ({"device": "cuda"}, "torch", "device cuda set"),
        ({"device": "cuda:1"}, "torch", "device cuda:1 set"),
        ({"device": "cpu", "engine": "torch"}, "torch", "device cpu set, engine torch set"),
        ({"device": "cpu", "engine": "openvino"}, "openvino", "device cpu set, engine openvino set"),
        ({"device": "cpu", "dtype": "float32"}, "openvino", "device cpu set"),
        ({"device": "cpu", "dtype": "bfloat16"}, "openvino", "device cpu set"),
        ({"device": "cpu", "dtype": "int8"}, "openvino", "device cpu set"),
        ({"device": "cpu", "dtype": "float16"}, "torch", "device cpu set"),  # OpenVINO has none there
        ({"device": "cuda", "dtype": "bfloat16"}, "torch", "device cuda set"),
    ],
)
def test_with_the_device_set_the_machine_is_not_asked(gpu: str, given: dict[str, str], engine: str, why: str) -> None:
    assert choose_engine(settings(**given)) == (engine, why)


def test_left_to_itself_torch_takes_a_gpu_and_openvino_a_cpu(gpu: str) -> None:
    assert (
        choose_engine(settings())
        == {
            "no GPU": ("openvino", "no GPU is here"),
            "GPU": ("torch", "a GPU is here"),
            "GPU, torch for CPUs": ("openvino", "a GPU is here, but torch is built for CPUs"),
        }[gpu]
    )


def test_an_engine_that_is_set_is_taken_and_said(gpu: str) -> None:
    engine, why = choose_engine(settings(engine="torch"))
    assert engine == "torch"
    assert why.endswith(", engine torch set")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"device": "cuda", "engine": "openvino"}, "openvino computes on a CPU, and device cuda set"),
        ({"device": "cuda", "dtype": "int8"}, "int8 needs engine openvino, and device cuda set"),
        ({"device": "cpu", "engine": "torch", "dtype": "int8"}, "int8 needs engine openvino"),
        ({"device": "cpu", "engine": "openvino", "dtype": "float16"}, "not float16"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(gpu: str, given: dict[str, str], says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says) as refused:
        choose_engine(settings(**given))
    assert refused.value.reason == "BAD_SETTING"
    assert refused.value.metadata["dtype"] == given.get("dtype", "auto")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
@pytest.mark.parametrize(
    ("asking", "forbidden"),
    [
        # Whoever may not enter the folder above may not even know that there is one.
        ("is_dir", ""),
        ("is_file", "config.json"),
        ("read_text", "config.json"),
        ("read_text", "tokenizer.json"),
        ("open", "model.safetensors"),
    ],
)
def test_a_model_that_may_not_be_read_is_one_sentence_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, asking: str, forbidden: str
) -> None:
    folder = tmp_path / "model"
    (build_bi_encoder if kind == "bi-encoder" else build_cross_encoder)(folder)
    denied = folder / forbidden if forbidden else folder
    allowed: Callable[..., Any] = getattr(Path, asking)

    def refuses(path: Path, *args: Any, **options: Any) -> Any:
        # Tests may run as root, who may read everything.
        if path == denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return allowed(path, *args, **options)

    monkeypatch.setattr(Path, asking, refuses)
    given = settings(model=str(folder), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(FailedPrecondition, match="may not be read") as caught:
        if kind == "bi-encoder":
            open_bi_encoder(given, apart=False)
        else:
            open_cross_encoder(given, default=default_bi_encoder, apart=False)
    assert caught.value.reason == "MODEL_UNREADABLE"
    assert str(denied) in caught.value.message
    assert "\n" not in caught.value.message
