"""What the clients of the services behind the gateway make of a failed call."""

from __future__ import annotations

from winnow_rpc.faults import Fault, PermissionDenied, Unauthenticated, Unavailable


def named(fault: Fault, backend: str) -> Fault:
    """The same fault; one for want of a connection, or of the gateway's right to call, says which backend is meant."""
    if isinstance(fault, Unavailable) and fault.reason == "UNAVAILABLE":
        return Unavailable(
            f"the {backend} cannot be reached",
            reason=f"{backend.upper()}_UNAVAILABLE",
            metadata={"cause": fault.message},
            retry_after=1.0,
        )
    if isinstance(fault, PermissionDenied | Unauthenticated):
        # It is the gateway that may not call, and not the gateway's caller.
        return Unavailable(
            f"the {backend} refuses this gateway",
            reason=f"{backend.upper()}_REFUSES_GATEWAY",
            metadata={"cause": fault.message},
        )
    return fault
