"""The connection to the index: qdrant-client, made anew when its certificates or its key have changed."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from qdrant_client import AsyncQdrantClient

from winnow_rpc.reloading import Reloaded
from winnow_rpc.tls import ClientFiles, ClientTls, client_files

_GRACE_SECONDS = 60.0
"""How long calls over a former connection may take to end; longer than any call of ours may."""


@dataclass(frozen=True, kw_only=True)
class IndexAccess:
    """How the index is to be spoken to."""

    tls: ClientTls | None = None
    """What to trust and show; None: plain text."""
    api_key: str | None = field(default=None, repr=False)
    """API key of a Qdrant server."""
    api_key_file: Path | None = None
    """File that holds the key, in its place; read anew when it changes."""


class _Shown(NamedTuple):
    files: ClientFiles | None
    api_key: str | None


class QdrantConnection:
    """Opens qdrant-client, and another in its place once the files of its access have changed."""

    def __init__(self, *, host: str, port: int, options: Mapping[str, Any], access: IndexAccess) -> None:
        """Raises InvalidArgument, reason BAD_SETTING, if the files will not do."""
        self._host = host
        self._port = port
        self._options = dict(options)
        self._access = access
        if access.tls and access.tls.server_name:
            self._options["grpc.ssl_target_name_override"] = access.tls.server_name
        self._files = client_files(access.tls) if access.tls else None
        key = access.api_key_file
        self._key = Reloaded([key], lambda: read_api_key(key), what=f"the index's API key in {key}") if key else None
        self._used = self._shown()
        self._client = self._open(self._used)
        self._closing: set[asyncio.Task[None]] = set()

    def client(self) -> AsyncQdrantClient:
        """The client for a call that begins now."""
        latest = self._shown()
        if latest.files is not self._used.files or latest.api_key != self._used.api_key:
            former, self._used, self._client = self._client, latest, self._open(latest)
            retired = asyncio.create_task(former.close(grpc_grace=_GRACE_SECONDS), name="retired index client")
            self._closing.add(retired)
            retired.add_done_callback(self._closing.discard)
        return self._client

    async def close(self) -> None:
        """Closes the connection, and those that it replaced."""
        for retired in tuple(self._closing):
            retired.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._client.close()

    def _shown(self) -> _Shown:
        return _Shown(
            self._files.current() if self._files else None, self._key.current() if self._key else self._access.api_key
        )

    def _open(self, shown: _Shown) -> AsyncQdrantClient:
        options = dict(self._options)
        if shown.files:
            # qdrant-client takes these out of the options again, for gRPC's credentials.
            options |= {
                "root_certificates": shown.files.ca,
                "private_key": shown.files.key,
                "certificate_chain": shown.files.certificate,
            }
        with warnings.catch_warnings():
            # That a key goes over plain text is the gateway's to say, once and in its own log.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return AsyncQdrantClient(
                host=self._host,
                grpc_port=self._port,
                prefer_grpc=True,
                https=shown.files is not None,
                api_key=shown.api_key,
                # It would ask over HTTP, which nothing else here needs.
                check_compatibility=False,
                # Texts go to the index as they are, for its own BM25; the client would run a model of its own for them.
                cloud_inference=True,
                grpc_options=options,
            )


def read_api_key(path: Path) -> str:
    """The key in a file. Raises OSError, or ValueError that quotes nothing of it."""
    found = path.read_text().strip()
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise ValueError(f"{path} does not hold one key and nothing else")
    return found
