"""What is made from files, and made anew when they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from winnow_rpc import telemetry
from winnow_rpc.faults import Fault, InvalidArgument

log = telemetry.get_logger("winnow.rpc")

T = TypeVar("T")

_CHECK_SECONDS = 1.0


class Reloaded(Generic[T]):
    """A value that is read from files, at most `check_seconds` behind them.

    Files are looked at when the value is asked for, so nothing runs in between. A change that cannot be read leaves the
    value as it was and is logged once; so files may be replaced one after the other. Safe to share between threads.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], T],
        *,
        what: str,
        check_seconds: float = _CHECK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads for the first time. `read` raises OSError, ValueError or a Fault, with no secret in its text, where the
        files will not do; then this raises InvalidArgument, reason BAD_SETTING. `what` names the value in the log."""
        self._paths = tuple(paths)
        self._read = read
        self._what = what
        self._check_seconds = check_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._signature()
        try:
            self._value = read()
        except (OSError, ValueError, Fault) as error:
            raise InvalidArgument(f"{what} cannot be used: {error}", reason="BAD_SETTING") from error
        self._checked = clock()

    def current(self) -> T:
        """The value, read anew if its files have changed."""
        with self._lock:
            now = self._clock()
            if now - self._checked >= self._check_seconds:
                self._checked = now
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        found = self._signature()
        if found == self._seen:
            return
        # Before it is read: what changes meanwhile is then seen the next time.
        self._seen = found
        try:
            self._value = self._read()
        except (OSError, ValueError, Fault) as error:
            log.error("kept as it was: the new one cannot be used", what=self._what, error=str(error))
        else:
            log.info("reloaded", what=self._what)

    def _signature(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        # Follows links: a mounted secret is changed by pointing a link elsewhere.
        found = path.stat()
    except OSError:
        return None
    # With the time of change, for a file that was only made readable.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
