"""Keeps the acknowledgements of one ingest stream in order. Pure bookkeeping: no I/O, one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from winnow.search.v1 import documents_pb2
from winnow_client.conversions import acknowledgement_from_proto
from winnow_client.documents import Acknowledgement, IngestOutcome
from winnow_rpc.faults import Fault, Internal


@dataclass(slots=True)
class _Line:
    id: str
    answer: documents_pb2.IngestAcknowledgement | Fault | None


class Ledger:
    """Documents in the order they were given, each sent to the gateway or refused here, until it is acknowledged.

    The gateway counts only what it was sent; here everything counts, so that callers can match by position.
    """

    def __init__(self) -> None:
        self._lines: deque[_Line] = deque()
        self._unanswered: deque[_Line] = deque()
        self._answered_count = 0
        self.acknowledged_count = 0
        """Acknowledgements handed out so far."""

    @property
    def outstanding_count(self) -> int:
        """Documents whose acknowledgement has not been handed out."""
        return len(self._lines)

    @property
    def unanswered_count(self) -> int:
        """Documents that the gateway was sent and has not answered."""
        return len(self._unanswered)

    def sent(self, document_id: str) -> None:
        """The next document goes to the gateway."""
        line = _Line(document_id, None)
        self._lines.append(line)
        self._unanswered.append(line)

    def refused(self, document_id: str, fault: Fault) -> None:
        """The next document cannot be sent."""
        self._lines.append(_Line(document_id, fault))

    def answered(self, message: documents_pb2.IngestAcknowledgement) -> None:
        """The gateway acknowledges a document. Raises Internal if it is not the one whose turn it is."""
        line = self._unanswered[0] if self._unanswered else None
        if line is None or message.sequence != self._answered_count or message.id != line.id:
            expected = "none" if line is None else f"{self._answered_count} ({line.id!r})"
            raise Internal(
                f"the gateway acknowledged document {message.sequence} ({message.id!r}), expected was {expected}",
                reason="ACKNOWLEDGEMENT_OUT_OF_ORDER",
            )
        self._unanswered.popleft()
        self._answered_count += 1
        line.answer = message

    def ready(self) -> Iterator[Acknowledgement]:
        """Hands out the acknowledgements that are known, in order, up to the first that is not."""
        while self._lines and (answer := self._lines[0].answer) is not None:
            line = self._lines.popleft()
            sequence = self.acknowledged_count
            self.acknowledged_count += 1
            if isinstance(answer, Fault):
                yield Acknowledgement(sequence=sequence, id=line.id, outcome=IngestOutcome.REFUSED, refusal=answer)
            else:
                yield acknowledgement_from_proto(answer, sequence=sequence)
