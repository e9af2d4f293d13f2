"""Shows how an ingest goes on: a bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from winnow_client.cli.ingest_run import Tally
from winnow_client.cli.output import console, printable, say, stream
from winnow_client.cli.reading.records import Meter
from winnow_client.documents import IngestOutcome

if TYPE_CHECKING:
    from rich.progress import TaskID

_BAR_SECONDS = 0.1
_LINE_SECONDS = 10.0


class Progress:
    """Shows, while it is entered, what a tally counts."""

    def __init__(self, collection: str, tally: Tally, meter: Meter) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._tally = tally
        self._meter = meter
        self._stop = threading.Event()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        if stream(stderr=True).isatty():
            share = (BarColumn(), TaskProgressColumn())
            texts = (TextColumn("{task.fields[counts]}"), TimeRemainingColumn())
            label = TextColumn("{task.description}", markup=False)
            self._bar = Bar(label, *share, *texts, console=console(stderr=True), transient=True)
            self._task = self._bar.add_task(printable(collection), total=None, counts="")
        # Its own thread: the event loop has better things to do, and may be busy.
        self._thread = threading.Thread(target=self._run, name="winnow progress", daemon=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A message beside the progress."""
        if self._bar is not None:
            self._bar.console.print(printable(text), soft_wrap=True)
        else:
            say(text)

    def _run(self) -> None:
        while not self._stop.wait(_LINE_SECONDS if self._bar is None else _BAR_SECONDS):
            self._show()

    def _show(self) -> None:
        tally, meter = self._tally, self._meter
        refused = tally.outcomes[IngestOutcome.REFUSED]
        counts = f"{tally.count:,} documents, {tally.rate:,.0f}/s" + (f", {refused:,} refused" if refused else "")
        if self._bar is None or self._task is None:
            share = f" ({meter.done / meter.total:.0%} read)" if meter.total else ""
            say(f"{counts}{share}")
        else:
            done = min(meter.done, meter.total) if meter.total else meter.done
            self._bar.update(self._task, completed=done, total=meter.total or None, counts=counts)
