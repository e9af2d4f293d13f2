"""An authority and certificates that it signs, for trying TLS out and for measuring it; not for production.

    python -m winnow_lab.certificates DIRECTORY gateway embedder reranker index

writes ca.pem, and for each name NAME.pem and NAME.key, which are valid for servers and clients, for that name and for
this machine's loopback.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a directory, which is made if it is not there. Another instance is another authority."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        """What to trust."""
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *names: str, into: str = "", expired: bool = False) -> Pair:
        """A certificate for these names, valid for servers and clients alike; `into`: the files' name, else the first
        name; `expired`: since yesterday."""
        now = datetime.now(UTC)
        leaf = self._ca.issue_cert(
            *names,
            common_name=names[0],
            not_before=now - timedelta(days=2) if expired else None,
            not_after=now - timedelta(days=1) if expired else None,
        )
        pair = Pair(self._directory / f"{into or names[0]}.pem", self._directory / f"{into or names[0]}.key")
        pair.key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(str(pair.key))
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return pair


def main(arguments: list[str]) -> int:
    """Makes certificates for the names; the exit status."""
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    authority = Authority(Path(arguments[0]))
    for name in arguments[1:]:
        authority.issue(name, "localhost", "127.0.0.1", into=name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
