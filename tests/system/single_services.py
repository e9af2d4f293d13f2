"""One service as a process of its own, which a test may kill, freeze, slow down and bring back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.system.running import START_SECONDS

QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


class SingleService:
    """A service on a port that it keeps over restarts."""

    def __init__(self, directory: Path, module: str, *flags: str, port: int = 0) -> None:
        self._log = directory / f"{module.rpartition('.')[2]}-{id(self):x}.jsonl"
        self._module = module
        self._flags = flags
        self.port = port
        self._read_from = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port, once it was started."""
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Starts it, and does not wait."""
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--log-format", "json", *self._flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**environment, **QUIET},
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )

    def ready(self) -> None:
        """Waits until it serves."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            lines = self._log.read_text()[self._read_from :].splitlines()
            for line in lines:
                if line.startswith("{") and (event := json.loads(line)).get("event") == "serving":
                    self.port = int(event["address"].rpartition(":")[2])
                    return
            assert self.process.poll() is None, f"it has ended: {lines[-5:]}"
            assert time.monotonic() < deadline, f"it does not serve: {lines[-5:]}"
            time.sleep(0.02)

    def start(self) -> None:
        """Starts it, and waits until it serves."""
        self.begin()
        self.ready()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it for good, whatever state it is in."""
        if self.process and self.process.poll() is None:
            self.thaw()
            self.kill()


class Slowed:
    """A service that runs a tenth of the time, while this is entered."""

    def __init__(self, service: SingleService) -> None:
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._service.freeze()
            time.sleep(0.045)
            self._service.thaw()
            time.sleep(0.005)
