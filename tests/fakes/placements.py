"""Which collections of an index in memory a name means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from winnow_gateway.placements import Placement, Role, alias, read_placement
from winnow_rpc.faults import Aborted


class FakePlacements:
    """Implements ports.Placements."""

    def __init__(self, held: Mapping[str, object], journals: Mapping[str, object]) -> None:
        self.aliases: dict[str, str] = {}
        self._held = held
        self._journals = journals

    async def placements(self, names: Iterable[str]) -> Mapping[str, Placement]:
        return {name: read_placement(name, self.aliases) for name in names}

    async def placement(self, name: str) -> Placement:
        await asyncio.sleep(0)
        return read_placement(name, self.aliases)

    async def begin(self, name: str, stored: str, journal: str) -> None:
        if stored not in self._held or journal not in self._journals:
            raise Aborted("there is no such collection")
        self.aliases.pop(alias(name, Role.HELD), None)
        self.aliases |= {alias(name, Role.NEXT): stored, alias(name, Role.JOURNAL): journal}

    async def hold(self, name: str) -> None:
        self._rename(alias(name, Role.NEXT), alias(name, Role.HELD))

    async def release(self, name: str) -> None:
        self._rename(alias(name, Role.HELD), alias(name, Role.NEXT))

    async def switch(self, placement: Placement) -> None:
        self._rename(alias(placement.name, Role.HELD), alias(placement.name, Role.LIVE))
        self.aliases[alias(placement.name, Role.FORMER)] = placement.live
        self.aliases.pop(alias(placement.name, Role.JOURNAL), None)

    def _rename(self, old: str, new: str) -> None:
        if old not in self.aliases:
            raise Aborted(f"there is no alias {old!r}")
        self.aliases[new] = self.aliases.pop(old)
