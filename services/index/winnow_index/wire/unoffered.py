"""Methods of Qdrant's protocol that this index does not have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from winnow_rpc.faults import Unimplemented

ServicerT = TypeVar("ServicerT", bound=type)


def refuse_the_rest(service: str) -> Callable[[ServicerT], ServicerT]:
    """Class decorator: every method of the protocol that the servicer does not define answers UNIMPLEMENTED by name."""

    def decorate(servicer: ServicerT) -> ServicerT:
        base = servicer.__mro__[1]
        for name, method in vars(base).items():
            if callable(method) and not name.startswith("_") and name not in vars(servicer):
                setattr(servicer, name, _refusing(service, name))
        return servicer

    return decorate


def _refusing(service: str, name: str) -> Callable[[Any, Any, Any], Awaitable[None]]:
    async def refuse(_self: Any, _request: Any, _context: Any) -> None:
        raise Unimplemented(
            f"{service}/{name} is not offered by this index", reason="METHOD_NOT_OFFERED", metadata={"method": name}
        )

    refuse.__name__ = name
    return refuse
