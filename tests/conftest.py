"""For every test."""

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

# A machine that is busy with other things is no failure of what is tested.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

# A shell that starts this in the background without job control makes its children ignore Ctrl-C, and theirs too. Tests
# that send it to a process mean a process that was started as a person would.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Models that tests convert go where nobody else's are, for this process and those that it starts, and away at the end.
_CACHE = tempfile.TemporaryDirectory(prefix="winnow-test-cache-")
os.environ["XDG_CACHE_HOME"] = str(Path(_CACHE.name))


def pytest_unconfigure(config: pytest.Config) -> None:
    _CACHE.cleanup()
