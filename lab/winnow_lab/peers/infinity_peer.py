"""infinity's server in a process of its own, asked over HTTP as its users do. Needs no Winnow, and no HTTP library.

The client is this process: one kept connection of `http.client` per request in flight, each on a thread of its own,
vectors as base64 (which OpenAI's client asks for, too). On two cores the client's work comes off the server's, as it
does for ours.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

REQUEST_TEXTS = 64
"""Texts of one request."""
IN_FLIGHT = 8
"""Requests under way at once. The server sorts what waits by length, so more of them help it to pad less."""
_NAME = "bench"
_READY_SECONDS = 300.0
_LISTENING = re.compile(r"running on http://127\.0\.0\.1:(\d+)")


class Contestant:
    """A server with one model."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._port = 0
        self._last_lines: list[str] = []
        self._threads = ThreadPoolExecutor(IN_FLIGHT)
        self._local = threading.local()

    def load(self, *, kind: str, model: str) -> dict[str, Any]:
        """Starts the server with a model on a free port and waits until it answers. `kind` is of no interest here."""
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None

        def end_with_parent() -> None:
            if libc:
                libc.prctl(1, signal.SIGKILL, 0, 0, 0)

        command = [sys.executable, "-c", "from infinity_emb.cli import cli; cli()", "v2", "--model-id", model]
        command += ["--served-model-name", _NAME, "--device", "cpu", "--no-bettertransformer"]
        command += ["--host", "127.0.0.1", "--port", "0"]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - nothing else runs in this process yet
        )
        self._port = self._await_port(self._server)
        return {"version": version("infinity-emb"), "engine": f"torch {version('torch')}"}

    def embed(self, *, texts: list[str], vectors: bool) -> dict[str, Any]:
        """Seconds to embed the texts in their order; and, if asked for, the vectors: float32, little-endian, base64."""
        parts = [texts[start : start + REQUEST_TEXTS] for start in range(0, len(texts), REQUEST_TEXTS)]
        began = time.perf_counter()
        answers = list(self._threads.map(self._embed, parts))
        seconds = time.perf_counter() - began
        rows = [base64.b64decode(row["embedding"]) for answer in answers for row in answer["data"]]
        data = base64.b64encode(b"".join(rows)).decode() if vectors else ""
        return {"seconds": seconds, "vectors": data, "dimension": len(rows[0]) // 4}

    def rerank(self, *, query: str, documents: list[str]) -> dict[str, Any]:
        """Seconds to score the documents, and the scores in their order."""
        body = {"model": _NAME, "query": query, "documents": documents, "return_documents": False}
        began = time.perf_counter()
        results = self._post("/rerank", body)["results"]
        seconds = time.perf_counter() - began
        scores = {result["index"]: float(result["relevance_score"]) for result in results}
        return {"seconds": seconds, "scores": [scores[index] for index in range(len(documents))]}

    def close(self) -> None:
        """Ends the server."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._server:
            self._server.terminate()
            try:
                self._server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    def _embed(self, texts: list[str]) -> Any:
        return self._post("/embeddings", {"model": _NAME, "input": texts, "encoding_format": "base64"})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return self._send(path, body)
        except ConnectionError:
            # The server closes what has been idle for some seconds; a pool of connections opens a new one, as here.
            self._local.connection = None
            return self._send(path, body)

    def _send(self, path: str, body: dict[str, Any]) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"infinity answered {response.status}: {text[:300]!r}")
        return json.loads(text)

    def _await_port(self, server: subprocess.Popen[str]) -> int:
        heard: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(server, heard.put), name="log", daemon=True).start()
        try:
            port = heard.get(timeout=_READY_SECONDS)
        except queue.Empty:
            port = None
        if port is None:
            server.kill()
            raise RuntimeError("infinity did not start: " + " ".join(" ".join(self._last_lines).split())[-300:])
        return port

    def _listen(self, server: subprocess.Popen[str], heard: Callable[[int | None], None]) -> None:
        """Reads the server's log to its end, so that it never waits for us; says its port as soon as that is there."""
        assert server.stdout is not None
        for line in server.stdout:
            self._last_lines = [*self._last_lines[-9:], line]
            if found := _LISTENING.search(line):
                heard(int(found[1]))
        heard(None)
