"""API keys: what is kept of them, how one is checked, and the file that holds them.

A key is `winnow_<id>_<secret>`. The secret is 256 random bits, of which the file keeps the SHA-256 alone. A slow,
salted hash is for passwords, which can be guessed; 256 random bits cannot, however fast the hash, and a fast one costs
a search nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

_ID = r"[a-z0-9][a-z0-9-]{0,31}"
_TOKEN = re.compile(rf"winnow_({_ID})_([A-Za-z0-9_-]{{43}})")
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a key may do. None of them includes another."""

    READ = "read"
    """Search, and look at documents and collections."""
    WRITE = "write"
    """Ingest and delete documents."""
    ADMIN = "admin"
    """Make and delete collections."""


class ApiKey(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=f"^{_ID}$")]
    """Its name, which is no secret: lower-case letters, digits and hyphens."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the secret, in hexadecimal."""
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    """What it may do."""
    collections: tuple[str, ...] = ("*",)
    """The collections on which it may: names, with `*`, `?` and `[…]` as in a shell. `acme-*` is what a tenant has."""
    created: AwareDatetime
    """When it was made."""
    expires: AwareDatetime | None = None
    """From when on it is refused; None: never."""

    def may_touch(self, collection: str) -> bool:
        """Whether a collection of this name is one of those."""
        return any(fnmatchcase(collection, pattern) for pattern in self.collections)

    def expired(self, now: datetime) -> bool:
        """Whether it is refused by now."""
        return self.expires is not None and now >= self.expires


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()


class KeyRing:
    """The keys that are accepted."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.id: key for key in keys}
        # Compared with where no key has the id, so that a wrong id takes as long as a wrong secret.
        self._nobody = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).hexdigest()

    def find(self, token: str) -> ApiKey | None:
        """The key that a token is, expired or not; None if it is none. Takes as long for every wrong one."""
        parts = _TOKEN.fullmatch(token)
        id_, secret = parts.groups() if parts else ("", "")
        known = self._keys.get(id_)
        same = hmac.compare_digest(_hashed(secret), known.sha256 if known else self._nobody)
        return known if same else None


def make_key(
    id_: str,
    *,
    scopes: Iterable[Scope],
    collections: Sequence[str] = ("*",),
    expires: datetime | None = None,
    now: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key: what is kept of it, and the token, which is to be had only here. Raises ValueError for a bad id."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    try:
        key = ApiKey(
            id=id_,
            sha256=_hashed(secret),
            scopes=frozenset(scopes),
            collections=tuple(collections) or ("*",),
            created=now or datetime.now(UTC),
            expires=expires,
        )
    except ValidationError as error:
        raise ValueError(_sentence(error)) from error
    return key, f"winnow_{id_}_{secret}"


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in a file. Raises OSError, or ValueError that says where it is wrong and quotes none of it."""
    try:
        found = _KeysFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no file of API keys: {_sentence(error)}") from None
    ids = [key.id for key in found.keys]
    if doubled := {id_ for id_ in ids if ids.count(id_) > 1}:
        raise ValueError(f"{path} holds more than one key of the id {min(doubled)!r}")
    return list(found.keys)


def write_keys(path: Path, keys: Iterable[ApiKey]) -> None:
    """Puts the keys into a file, whole or not at all; nobody but its owner may read it (mode 0600), who stays the same
    where root writes. Raises OSError."""
    target = path.resolve()
    text = json.dumps(_KeysFile(keys=tuple(keys)).model_dump(mode="json"), indent=2) + "\n"
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError, PermissionError):
            former = target.stat()
            os.chown(temporary, former.st_uid, former.st_gid)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
