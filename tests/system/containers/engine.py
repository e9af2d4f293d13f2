"""The container engine of this machine, if there is one, and one Compose project on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ("docker-compose.yml", "deploy/compose.embedded.yml")
SECURE = ("docker-compose.yml", "deploy/compose.secure.yml")
SECURE_EMBEDDED = (*EMBEDDED, "deploy/compose.secure.yml", "deploy/compose.secure.embedded.yml")
SERVICES = ("gateway", "index", "reranker", "embedder")


@cache
def why_no_compose() -> str:
    """Why `docker compose` cannot be used here; empty if it can. Reading a configuration needs no engine."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False).returncode:
        return "the docker command has no Compose plugin"
    return ""


@cache
def why_no_engine() -> str:
    """Why no container can be started here; empty if one can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    if subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode:
        return "no container engine answers"
    return ""


def docker(*arguments: str, timeout: float = 120, check: bool = True, stdin: str = "") -> str:
    """What a docker command prints, both ways; fails the test, with all of it, if it ends badly and `check` is set."""
    ended = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or ended.returncode == 0, (
        f"docker {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stdout}"
    )
    return ended.stdout.strip()


def inspected(container: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    return dict(json.loads(docker("inspect", container))[0])


def health(container: str) -> str:
    """What the health check of a container's image found: "starting", "healthy", "unhealthy"."""
    return str(inspected(container)["State"]["Health"]["Status"])


def events(container: str, name: str) -> list[dict[str, Any]]:
    """The events of this name in a service's log, in their order."""
    lines = [json.loads(line) for line in docker("logs", container).splitlines() if line.startswith("{")]
    return [event for event in lines if event["event"] == name]


def merged(*files: str, **settings: str) -> dict[str, Any]:
    """The configuration that Compose reads from these files of the root, with nothing set but `settings`."""
    found = subprocess.run(
        ["docker", "compose", *_file_flags(files), "--env-file", os.devnull, "config", "--format", "json"],
        cwd=ROOT,
        env=_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return dict(json.loads(found.stdout))


class Project:
    """A Compose project of its own name, so that it meets no other on the same engine."""

    def __init__(self, *files: str, name: str, **settings: str) -> None:
        self._command = ["docker", "compose", *_file_flags(files), "--env-file", os.devnull, "--project-name", name]
        self._settings = settings

    def run(self, *arguments: str, timeout: float = 120) -> str:
        """What `docker compose` prints for these arguments; fails the test, with all of it, if that ends badly."""
        ended = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=_environment(self._settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert ended.returncode == 0, (
            f"docker compose {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stdout}"
        )
        return ended.stdout

    def ids(self, *services: str) -> list[str]:
        """Ids of the containers of these services, of all without any, running or not."""
        return self.run("ps", "--all", "--quiet", *services).split()

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each container, running or not, by service; of one of them where there are more."""
        found = [inspected(id_) for id_ in self.ids()]
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


def _file_flags(files: tuple[str, ...]) -> list[str]:
    return [flag for file in files for flag in ("--file", file)]


def _environment(settings: dict[str, str]) -> dict[str, str]:
    # What a developer has set for their own stack must not reach this one, except for how images are built.
    building = ("WINNOW_BASE_IMAGE", "WINNOW_TORCH_INDEX", "WINNOW_PIP_ARGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_") or name in building}
    return {**kept, **settings}
