"""What a failed call of the gateway is to the caller."""

from __future__ import annotations

import grpc

from winnow_rpc.faults import DeadlineExceeded, Fault, Unavailable
from winnow_rpc.status import fault_from_rpc_error


def gateway_fault(error: grpc.aio.AioRpcError, *, target: str, timeout: float | None) -> Fault:
    """The fault of a call; where nobody answered, it says who was asked and for how many seconds."""
    fault = fault_from_rpc_error(error)
    # Without a reason of its own the fault is gRPC's word, not the gateway's.
    if isinstance(fault, Unavailable) and fault.reason == Unavailable.default_reason:
        return Unavailable(
            f"the gateway at {target} cannot be reached: {fault.message}",
            reason="GATEWAY_UNREACHABLE",
            metadata={"target": target},
        )
    if isinstance(fault, DeadlineExceeded) and fault.reason == DeadlineExceeded.default_reason and timeout:
        return DeadlineExceeded(
            f"the gateway at {target} did not answer within {timeout:g} seconds", metadata={"target": target}
        )
    return fault
