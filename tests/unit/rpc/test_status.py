"""Faults become statuses and come back whole."""

import base64
from urllib.parse import quote

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from hypothesis import given

from winnow_rpc import faults
from winnow_rpc.status import CODES, DOMAIN, code_of, fault_of, status_of

KINDS = sorted(CODES, key=lambda kind: kind.__name__)
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)


def subclasses(kind: type[faults.Fault]) -> set[type[faults.Fault]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__())) - {faults.Fault}


def test_every_kind_of_fault_has_a_status_code() -> None:
    assert {kind for kind in subclasses(faults.Fault) if kind.__module__ == "winnow_rpc.faults"} == set(CODES)


def test_no_two_kinds_share_a_code() -> None:
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("kind", KINDS)
@given(message=printable, reason=printable, facts=st.dictionaries(printable, printable, max_size=3))
def test_a_fault_survives_the_wire(kind: type[faults.Fault], message: str, reason: str, facts: dict[str, str]) -> None:
    came = fault_of(status_of(kind(message, reason=reason, metadata=facts)))
    assert type(came) is kind
    assert (came.message, came.reason, came.metadata) == (message, reason, facts)


def test_field_violations_and_retry_hints_survive_the_wire() -> None:
    refused = faults.InvalidArgument("too long", field="query", reason="TOO_LONG")
    came = fault_of(status_of(refused))
    assert isinstance(came, faults.InvalidArgument)
    assert came.violations == (faults.FieldViolation("query", "too long"),)
    busy = fault_of(status_of(faults.ResourceExhausted("busy", retry_after=1.25)))
    assert busy.retry_after == 1.25


@pytest.mark.parametrize("sign", ["x", "ü", "語", "😀"])
def test_what_a_caller_sent_however_long_leaves_room_for_the_refusal(sign: str) -> None:
    sent = sign * 100_000
    refused = faults.InvalidArgument(f"{sent} is wrong", field=sent, reason="WRONG", metadata={"sent": sent})
    status = status_of(refused)
    headers = len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
    assert headers < 8192, "gRPC takes no more, and would say RESOURCE_EXHAUSTED in the place of all this"
    came = fault_of(status)
    assert isinstance(came, faults.InvalidArgument)
    assert came.reason == "WRONG"
    for text in (came.message, came.violations[0].field, came.violations[0].description, came.metadata["sent"]):
        assert text.endswith("...")
        assert sent.startswith(text.removesuffix("..."))


def test_a_long_value_is_quoted_by_its_beginning() -> None:
    assert faults.quoted("it's") == '"it\'s"'
    assert faults.quoted("x" * 80) == repr("x" * 80)
    assert faults.quoted("x" * 81) == repr("x" * 80) + "..."


def test_a_detail_of_a_kind_we_do_not_know_is_passed_over() -> None:
    status = status_of(faults.NotFound("gone"))
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/unknown.Thing", value=b"?"))
    assert isinstance(fault_of(status), faults.NotFound)


def test_a_status_without_details_still_becomes_a_fault() -> None:
    code = grpc.StatusCode.UNAVAILABLE
    fault = fault_of(status_pb2.Status(code=code.value[0], message="connection refused"))
    assert isinstance(fault, faults.Unavailable)
    assert fault.reason == "UNAVAILABLE"
    assert isinstance(fault_of(status_pb2.Status(code=2)), faults.Internal)


def test_what_grpc_says_of_a_server_that_stopped_is_unavailable() -> None:
    code = grpc.StatusCode.CANCELLED
    fault = fault_of(status_pb2.Status(code=code.value[0], message="CANCELLED"))
    assert isinstance(fault, faults.Unavailable)
    assert fault.reason == faults.Unavailable.default_reason


def test_a_fault_of_a_derived_kind_takes_the_code_of_its_parent() -> None:
    class Special(faults.NotFound):
        pass

    assert code_of(Special("gone")) is grpc.StatusCode.NOT_FOUND
    assert status_of(Special("gone")).details[0].type_url.endswith("ErrorInfo")
    assert DOMAIN == "winnow.dev"
