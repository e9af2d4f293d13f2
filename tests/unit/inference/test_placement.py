import pytest

from winnow_inference.engines.torch_placement import place
from winnow_inference.machine import usable_cores


def test_a_cpu_computes_in_float32_on_all_cores_unless_told_otherwise() -> None:
    chosen = place(device="cpu", dtype="auto", threads=0)
    assert (chosen.device, chosen.dtype, chosen.threads) == ("cpu", "float32", usable_cores())
    told = place(device="cpu", dtype="bfloat16", threads=3)
    assert (told.dtype, told.threads) == ("bfloat16", 3)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_choice_is_explained(device: str) -> None:
    assert place(device=device, dtype="auto", threads=0).reason
