"""Says what has to be installed for some of this repository's distributions, read from their pyproject.toml files.

    python requirements.py ROOT third-party services/gateway   # requirements from the package index, one a line
    python requirements.py ROOT house services/gateway         # names of this repository's own distributions

Both follow this repository's distributions through each other, extras included. Images install the first before any
code is copied, so that a change of code does not install PyTorch again, and the second without looking at an index.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main(root: Path, kind: str, folders: list[str]) -> None:
    """Prints the requirements of the distributions in `folders`, each once, sorted."""
    manifests = [
        tomllib.loads(path.read_text()) for depth in ("*", "*/*") for path in root.glob(f"{depth}/pyproject.toml")
    ]
    ours = {str(manifest["project"]["name"]): manifest["project"] for manifest in manifests if "project" in manifest}
    waiting = [tomllib.loads((root / folder / "pyproject.toml").read_text())["project"]["name"] for folder in folders]
    followed: set[str] = set()
    house: set[str] = set()
    third_party: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement in followed:
            continue
        followed.add(requirement)
        name, extras = _named(requirement)
        if name not in ours:
            third_party.add(requirement)
            continue
        house.add(name)
        waiting += ours[name].get("dependencies", [])
        for extra in extras:
            waiting += ours[name]["optional-dependencies"][extra]
    sys.stdout.write("".join(f"{line}\n" for line in sorted(third_party if kind == "third-party" else house)))


def _named(requirement: str) -> tuple[str, list[str]]:
    """The distribution that a requirement names, and the extras of it that are asked for."""
    found = re.match(r"([\w.-]+)(?:\[([^]]*)\])?", requirement)
    assert found is not None, requirement
    return found[1], [extra.strip() for extra in (found[2] or "").split(",") if extra.strip()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
