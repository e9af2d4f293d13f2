"""Who may call what at the gateway: API keys, their scopes and their collections."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from winnow_rpc.api_keys import ApiKey, KeyRing, Scope, read_keys
from winnow_rpc.faults import PermissionDenied, Unauthenticated
from winnow_rpc.reloading import Reloaded
from winnow_rpc.requesting import Metadata

_PREFIX = "bearer "

_caller: ContextVar[ApiKey | None] = ContextVar("winnow_gateway_caller", default=None)


@dataclass(frozen=True, slots=True)
class Access:
    """What a method needs."""

    scope: Scope
    """The scope that a key must have."""
    collection: str | None
    """Path, within the request or the first message of a stream, of the name of the collection that it is about; None:
    about none, then the method itself heeds `visible`."""


ACCESS = {
    "CreateCollection": Access(Scope.ADMIN, "name"),
    "GetCollection": Access(Scope.READ, "name"),
    "ListCollections": Access(Scope.READ, None),
    "DeleteCollection": Access(Scope.ADMIN, "name"),
    "ReembedCollection": Access(Scope.ADMIN, "name"),
    "IngestDocuments": Access(Scope.WRITE, "header.collection"),
    "GetDocument": Access(Scope.READ, "collection"),
    "ListDocuments": Access(Scope.READ, "collection"),
    "DeleteDocuments": Access(Scope.WRITE, "collection"),
    "Search": Access(Scope.READ, "collection"),
    "StreamSearch": Access(Scope.READ, "search.collection"),
}
"""Every method of the contract and what it needs. One that is not here is refused."""


class KeyAuthorizer:
    """Implements `winnow_rpc.requesting.Authorizer` over a file of keys, which is read anew when it changes.

    A file that cannot be read any more leaves the keys as they were.
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidArgument, reason BAD_SETTING, if the file will not do."""
        self._keys = Reloaded([path], lambda: KeyRing(read_keys(path)), what=f"the API keys in {path}")

    def admit(self, method: str, metadata: Metadata) -> None:
        """Raises Unauthenticated without a key that is known and in force, PermissionDenied without the scope."""
        token = _bearer(metadata)
        if token is None:
            raise Unauthenticated(
                "the gateway wants an API key, in the metadata `authorization: Bearer …`", reason="NO_API_KEY"
            )
        key = self._keys.current().find(token)
        if key is None:
            raise Unauthenticated("the API key is not known", reason="UNKNOWN_API_KEY")
        if key.expired(datetime.now(UTC)):
            raise Unauthenticated(f"the API key {key.id!r} has expired", reason="EXPIRED_API_KEY")
        access = ACCESS.get(_name(method))
        if access is None or access.scope not in key.scopes:
            needed = f"the scope {access.scope.value!r}" if access else "what no key has"
            raise PermissionDenied(
                f"the API key {key.id!r} may not call {_name(method)}: that needs {needed}", reason="SCOPE"
            )
        _caller.set(key)

    def permit(self, method: str, request: Any) -> None:
        """Raises PermissionDenied for a collection that the key is not for, whether there is such a one or not."""
        access, key = ACCESS[_name(method)], _caller.get()
        if access.collection is None:
            return
        name = request
        for part in access.collection.split("."):
            name = getattr(name, part)
        if key is None or not key.may_touch(name):
            raise PermissionDenied("the API key is not for this collection", reason="COLLECTION")


def visible(collection: str) -> bool:
    """Whether the caller of this request may know of a collection; all may be known where there are no keys."""
    key = _caller.get()
    return key is None or key.may_touch(collection)


def _name(method: str) -> str:
    return method.rpartition("/")[2]


def _bearer(metadata: Metadata) -> str | None:
    """The token of the `authorization` metadata; None where there is none or more than one."""
    found = [value for key, value in metadata if key == "authorization"]
    if len(found) != 1 or not isinstance(found[0], str) or not found[0].lower().startswith(_PREFIX):
        return None
    return found[0][len(_PREFIX) :]
