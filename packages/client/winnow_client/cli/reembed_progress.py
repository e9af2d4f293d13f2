"""Shows how re-embedding goes on, and goes on with it where the gateway was away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from winnow_client.cli.output import console, emit, printable, say, stream
from winnow_client.collections import ReembedPhase, ReembedProgress
from winnow_rpc.faults import Unavailable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_SECONDS = 10.0
_AWAY_SECONDS = 60.0
"""How long a gateway may be away, as while it is replaced by a new version, before the command gives up."""
_PAUSE_SECONDS = 1.0

_DOING = {
    ReembedPhase.INDEXING: "building the graph",
    ReembedPhase.SWITCHING: "switching",
    ReembedPhase.SWITCHED: "switched; the former vectors stay for a moment",
}


def resumed(
    call: Callable[[], Iterator[ReembedProgress]],
    *,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[ReembedProgress]:
    """The progress of a call, made again where the gateway went away after it had begun."""
    heard: float | None = None
    while True:
        try:
            for progress in call():
                heard = clock()
                yield progress
            return
        except Unavailable as fault:
            if heard is None or clock() - heard > _AWAY_SECONDS:
                raise
            say(f"waits, and goes on when it can: {fault.message}")
            sleep(_PAUSE_SECONDS)


class ReembedShown:
    """Shows each progress: a bar on a terminal, a line now and then elsewhere, both on standard error; or JSON."""

    def __init__(self, name: str, *, machine: bool) -> None:
        self._machine = machine
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said: tuple[float, ReembedPhase | None] = (time.monotonic(), None)
        if stream(stderr=True).isatty() and not machine:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            doing = TextColumn("{task.fields[doing]}", markup=False)
            self._bar = Progress(*columns, TimeRemainingColumn(), doing, console=console(stderr=True), transient=True)
            self._task = self._bar.add_task(printable(name), total=None, doing="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A message beside the progress."""
        if self._bar is not None:
            self._bar.console.print(printable(text), soft_wrap=True)
        else:
            say(text)

    def show(self, progress: ReembedProgress) -> None:
        """The latest."""
        done, total = progress.embedded_document_count, progress.document_count
        if self._machine:
            emit(progress)
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, doing=_DOING.get(progress.phase, ""))
        else:
            then, phase = self._said
            if time.monotonic() - then >= _LINE_SECONDS or progress.phase not in (phase, ReembedPhase.EMBEDDING):
                self._said = (time.monotonic(), progress.phase)
                say(f"{done:,} of {total:,} documents: {_DOING.get(progress.phase, 'embedding')}")
