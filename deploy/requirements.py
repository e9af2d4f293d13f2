"""Says what has to be installed for some of this repository's distributions, read from their pyproject.toml files.

    python requirements.py ROOT third-party services/gateway   # requirements from the package index, one a line
    python requirements.py ROOT house services/gateway         # names of this repository's own distributions

Both follow this repository's distributions through each other. Images install the first before any code is copied, so
that a change of code does not install PyTorch again, and the second without looking at an index at all.
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
    projects = [manifest["project"] for manifest in manifests if "project" in manifest]
    ours = {str(project["name"]): project for project in projects}
    waiting = [tomllib.loads((root / folder / "pyproject.toml").read_text())["project"]["name"] for folder in folders]
    house: set[str] = set()
    third_party: set[str] = set()
    seen: set[str] = set()
    while waiting:
        # "name" or "name[extra,extra]"; a distribution may be asked for with other extras each time.
        asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        name, _, extras = asked.rstrip("]").partition("[")
        house.add(name)
        project = ours[name]
        requirements = [*project.get("dependencies", [])]
        for extra in filter(None, extras.split(",")):
            requirements += project["optional-dependencies"][extra.strip()]
        for requirement in requirements:
            needed = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            if needed in ours:
                waiting.append(requirement)
            else:
                third_party.add(requirement)
    sys.stdout.write("".join(f"{line}\n" for line in sorted(third_party if kind == "third-party" else house)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
