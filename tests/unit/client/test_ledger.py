from __future__ import annotations

import pytest

from winnow.search.v1 import documents_pb2
from winnow_client.documents import IngestOutcome
from winnow_client.ledger import Ledger
from winnow_rpc.faults import Internal, InvalidArgument


def answer(sequence: int, id_: str) -> documents_pb2.IngestAcknowledgement:
    return documents_pb2.IngestAcknowledgement(sequence=sequence, id=id_, outcome=documents_pb2.INGEST_OUTCOME_INDEXED)


def test_acknowledgements_come_in_the_order_of_the_documents_with_those_refused_here_between() -> None:
    ledger = Ledger()
    ledger.sent("a")
    ledger.refused("b", InvalidArgument("no", reason="NO"))
    ledger.sent("c")
    assert list(ledger.ready()) == []
    ledger.answered(answer(0, "a"))
    first, second = ledger.ready()
    assert (first.sequence, first.id, first.outcome) == (0, "a", IngestOutcome.INDEXED)
    assert (second.sequence, second.id, second.outcome) == (1, "b", IngestOutcome.REFUSED)
    ledger.answered(answer(1, "c"))
    assert [(each.sequence, each.id) for each in ledger.ready()] == [(2, "c")]
    assert (ledger.outstanding_count, ledger.unanswered_count, ledger.acknowledged_count) == (0, 0, 3)


@pytest.mark.parametrize("wrong", [answer(1, "a"), answer(0, "b")])
def test_an_acknowledgement_whose_turn_it_is_not_is_the_gateways_mistake(
    wrong: documents_pb2.IngestAcknowledgement,
) -> None:
    ledger = Ledger()
    ledger.sent("a")
    ledger.sent("b")
    with pytest.raises(Internal) as caught:
        ledger.answered(wrong)
    assert caught.value.reason == "ACKNOWLEDGEMENT_OUT_OF_ORDER"


def test_an_acknowledgement_of_nothing_is_the_gateways_mistake() -> None:
    with pytest.raises(Internal, match="expected was none"):
        Ledger().answered(answer(0, "a"))
