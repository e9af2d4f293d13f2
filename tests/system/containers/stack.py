"""The four services in containers on a network of their own, started without Compose, as confined as it does."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.system.containers.engine import docker, health, inspected
from tests.system.running import wait_until

# It would be fetched from a registry to clean up after this process; what is started here is removed here.
testcontainers_config.ryuk_disabled = True

CONFINED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "mem_limit": "3g",
    "pids_limit": 512,
}
PORTS = {"embedder": 50051, "reranker": 50052, "index": 6334, "gateway": 50050}
HEALTHY_SECONDS = 480.0
"""Bound of a start; the embedder converts its model at the first one, maybe while a client searches without a pause."""


class Stack:
    """Containers by service. Enter it to start them; nothing of it is left at the end, volumes included."""

    def __init__(self, tag: str, *, index: DockerContainer | None = None) -> None:
        """`index`: a container in the place of ours, which answers at port 6334."""
        self._tag = tag
        self._index = index
        self._network = Network()
        self._volumes: dict[str, str] = {}
        self._over = contextlib.ExitStack()
        self._containers: dict[str, DockerContainer] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.enter_context(self._network)
            starting.callback(self._remove_volumes)
            for service in PORTS:
                container = self._index if service == "index" and self._index else self.container(service)
                container.with_network(self._network).with_network_aliases(service)
                container.start()
                starting.callback(container.stop, force=True, delete_volume=True)
                self._containers[service] = container
            for service in PORTS:
                if service != "index" or self._index is None:
                    self.wait(service)
            self._over = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.close()

    @property
    def address(self) -> str:
        """host:port of the gateway, on loopback."""
        binding = inspected(self.id("gateway"))["NetworkSettings"]["Ports"]["50050/tcp"][0]
        assert binding["HostIp"] == "127.0.0.1"
        return f"127.0.0.1:{binding['HostPort']}"

    def container(self, service: str) -> DockerContainer:
        """One that is not started."""
        made = DockerContainer(f"winnow-{service}:{self._tag}", **CONFINED).with_tmpfs_mount("/tmp")
        if service == "gateway":
            made.with_envs(
                WINNOW_GATEWAY_EMBEDDER="dns:///embedder:50051",
                WINNOW_GATEWAY_RERANKER="dns:///reranker:50052",
                WINNOW_GATEWAY_INDEX="index:6334",
            )
            # A port that the engine chooses, on loopback.
            made.ports["50050/tcp"] = ("127.0.0.1", None)
        if service == "index":
            made.with_volume_mapping(self._volume(service), "/var/lib/winnow", "rw")
        if service == "embedder":
            # What is made of a model once is found by all embedders after.
            made.with_volume_mapping(self._volume(service), "/var/cache/winnow", "rw")
        return made

    def add(
        self,
        service: str,
        alias: str,
        *,
        environment: Mapping[str, str] | None = None,
        volumes: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> str:
        """Starts one more container of a service, and waits until it is healthy; its id.

        `alias`: its name on the network, which others may have too. `environment`: beside or in the place of what it
        has. `volumes`: folder of this machine → where it is mounted, to be read. `port`: where a gateway is published.
        """
        made = self.container(service).with_envs(**environment or {})
        for folder, place in (volumes or {}).items():
            made.with_volume_mapping(folder, place, "ro")
        if port:
            made.ports["50050/tcp"] = ("127.0.0.1", port)
        made.with_network(self._network).with_network_aliases(alias)
        made.start()
        started: str = made.get_wrapped_container().id
        self._over.callback(docker, "rm", "--force", "--volumes", started, check=False)
        _wait(started)
        return started

    def id(self, service: str) -> str:
        """The container's id."""
        found: str = self._containers[service].get_wrapped_container().id
        return found

    def wait(self, service: str) -> None:
        """Waits until the image's own health check passes."""
        _wait(self.id(service))

    def start_again(self, service: str) -> None:
        """Starts a container that has ended, and waits until it is healthy."""
        docker("start", self.id(service))
        self.wait(service)

    def _volume(self, service: str) -> str:
        """The volume that a service's containers share."""
        if service not in self._volumes:
            self._volumes[service] = docker("volume", "create")
        return self._volumes[service]

    def _remove_volumes(self) -> None:
        for volume in self._volumes.values():
            docker("volume", "rm", "--force", volume, check=False)


def retire(container: str) -> None:
    """Ends a container as an upgrade does, and removes it."""
    docker("stop", "--time", "25", container)
    docker("rm", "--volumes", container)


def _wait(container: str) -> None:
    wait_until(lambda: health(container) == "healthy", seconds=HEALTHY_SECONDS)
