"""What the clients of both model services make of a failed call."""

from __future__ import annotations

from winnow_rpc.faults import Fault, Unavailable


def named(fault: Fault, backend: str) -> Fault:
    """The same fault; one that gRPC itself raised for want of a connection says which backend is meant."""
    if isinstance(fault, Unavailable) and fault.reason == "UNAVAILABLE":
        return Unavailable(
            f"the {backend} cannot be reached",
            reason=f"{backend.upper()}_UNAVAILABLE",
            metadata={"cause": fault.message},
            retry_after=1.0,
        )
    return fault
