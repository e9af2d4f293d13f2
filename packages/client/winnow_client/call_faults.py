"""What a failed call of the gateway is to the caller."""

from __future__ import annotations

import grpc

from winnow_rpc.faults import DeadlineExceeded, Fault, Unavailable
from winnow_rpc.status import fault_from_rpc_error

# What gRPC says where somebody answers and TLS fails, and what it means; the first that is found counts.
_TLS_CAUSES = (
    ("Hostname Verification Check failed", "its certificate does not bear the name that it is reached by"),
    ("certificate has expired", "its certificate has expired"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is signed by no authority that is trusted here"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("Tls handshake failed", "TLS fails"),
)


def gateway_fault(error: grpc.aio.AioRpcError, *, target: str, timeout: float | None) -> Fault:
    """The fault of a call; where nobody answered, it says who was asked and for how many seconds."""
    fault = fault_from_rpc_error(error)
    # Without a reason of its own the fault is gRPC's word, not the gateway's.
    if isinstance(fault, Unavailable) and fault.reason == Unavailable.default_reason:
        cause = next((meaning for words, meaning in _TLS_CAUSES if words in fault.message), "")
        return Unavailable(
            f"the gateway at {target} cannot be reached: {cause + ': ' if cause else ''}{fault.message}",
            reason="GATEWAY_UNREACHABLE",
            metadata={"target": target} | ({"cause": cause} if cause else {}),
        )
    if isinstance(fault, DeadlineExceeded) and fault.reason == DeadlineExceeded.default_reason and timeout:
        return DeadlineExceeded(
            f"the gateway at {target} did not answer within {timeout:g} seconds", metadata={"target": target}
        )
    return fault
