"""The health check of the containers, against a server with and without TLS."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.contract.rpc.example import Example, echo, running
from winnow_rpc.serving import LIVENESS

SCRIPT = Path(__file__).parents[3] / "deploy" / "healthcheck.py"


@pytest.mark.parametrize("kind", ["plain", "tls", "mutual"])
async def test_the_health_check_of_a_container_finds_what_the_service_listens_with(tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path)
    # The name that others call it by: not that of loopback.
    pair = authority.issue("embedder.example")
    settings: dict[str, Any] = {} if kind == "plain" else {"tls_certificate": pair.certificate, "tls_key": pair.key}
    if kind == "mutual":
        settings |= {"tls_client_ca": authority.file, "tls_client_names": ("gateway",)}
    example = Example(echo)
    async with running(example, **settings) as (server, _):
        environment = {"WINNOW_EMBEDDER_PORT": server.address.rpartition(":")[2]}
        environment |= {f"WINNOW_EMBEDDER_{name.upper()}": str(value) for name, value in settings.items()}
        assert await checked(environment) == (0, f"{server.address} says SERVING\n")
        example.healthy = False
        await asyncio.sleep(0.2)
        assert await checked(environment) == (1, f"{server.address} says NOT_SERVING\n")
        assert await checked(environment, LIVENESS) == (0, f"{server.address} says SERVING\n")
    status, said = await checked(environment)
    assert status == 1
    assert "does not answer" in said


@pytest.mark.parametrize(
    ("host", "shown", "secure"),
    [("0.0.0.0", "127.0.0.1", False), ("::", "[::1]", True), ("localhost", "localhost", False)],
)
async def test_the_health_check_asks_where_the_service_listens(
    tmp_path: Path, host: str, shown: str, secure: bool
) -> None:
    pair = Authority(tmp_path).issue("embedder.example")
    settings: dict[str, Any] = {"tls_certificate": pair.certificate, "tls_key": pair.key} if secure else {}
    async with running(Example(echo), host=host, **settings) as (server, _):
        port = server.address.rpartition(":")[2]
        environment = {"WINNOW_EMBEDDER_HOST": host, "WINNOW_EMBEDDER_PORT": port}
        environment |= {f"WINNOW_EMBEDDER_{name.upper()}": str(value) for name, value in settings.items()}
        assert await checked(environment) == (0, f"{shown}:{port} says SERVING\n")


async def checked(environment: dict[str, str], *asked: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        "embedder",
        *asked,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()
