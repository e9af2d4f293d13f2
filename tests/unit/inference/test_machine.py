import ctypes.util
import os
from pathlib import Path

import pytest

from winnow_inference.machine import nvidia_device_count, processor, torch_is_built_for_gpus, usable_cores

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", ALLOWED),
        ("50000 100000\n", 1),  # half a core is one
        ("100000 100000\n", 1),
        ("150000 100000\n", min(2, ALLOWED)),
        ("99900000 100000\n", ALLOWED),
        ("", ALLOWED),
        ("what is this\n", ALLOWED),
        ("100000\n", ALLOWED),
        ("100000 0\n", ALLOWED),
    ],
)
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "no such file") == ALLOWED
    assert usable_cores(tmp_path) == ALLOWED


def test_without_a_driver_there_is_no_gpu() -> None:
    if ctypes.util.find_library("cuda") is not None:
        pytest.skip("a driver is here")
    assert nvidia_device_count() == 0


def test_the_build_of_torch_is_known_without_importing_it() -> None:
    import torch

    assert torch_is_built_for_gpus() == (not torch.__version__.endswith("+cpu"))


def test_the_processor_has_a_name_that_stays() -> None:
    assert processor() == processor()
    assert len(processor()) > len(os.uname().machine)
