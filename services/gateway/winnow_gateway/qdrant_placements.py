"""Placements as Qdrant's aliases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from qdrant_client import AsyncQdrantClient, models

from winnow_gateway.placements import Placement, Role, alias, read_placement
from winnow_gateway.qdrant_calls import asking
from winnow_rpc.faults import Aborted, Internal, NotFound


class QdrantPlacements:
    """Implements `ports.Placements`."""

    def __init__(self, client: Callable[[], AsyncQdrantClient], *, timeout_seconds: float) -> None:
        self._client = client
        self._timeout = timeout_seconds

    async def placements(self, names: Iterable[str]) -> Mapping[str, Placement]:
        """Where each of the names is kept now, in one call."""
        async with asking(timeout=self._timeout):
            listed = await self._client().get_aliases()
        aliases = {each.alias_name: each.collection_name for each in listed.aliases}
        return {name: read_placement(name, aliases) for name in names}

    async def placement(self, name: str) -> Placement:
        """Where a name is kept now."""
        return (await self.placements([name]))[name]

    async def begin(self, name: str, stored: str, journal: str) -> None:
        """From now on a collection of the index is the one that is being filled, and writes go into this journal. Who
        was at it before is not any more."""
        await self._change(
            name,
            _dropped(alias(name, Role.HELD)),
            _dropped(alias(name, Role.SWITCHING)),
            _points(alias(name, Role.JOURNAL), journal),
            _points(alias(name, Role.NEXT), stored),
        )

    async def hold(self, name: str) -> None:
        """From now on writes wait. Aborted if nothing is being filled."""
        await self._change(name, _renamed(name, Role.NEXT, Role.HELD))

    async def release(self, name: str) -> None:
        """Writes go on, to where they went. Aborted if none were held."""
        await self._change(name, _renamed(name, Role.HELD, Role.NEXT))

    async def switch(self, placement: Placement) -> None:
        """The held collection is the live one, the live one the former, at once. Aborted if none is held any more."""
        name = placement.name
        if placement.next is None:
            raise Aborted(f"nothing is there to take the place of {name!r}", reason="NOT_HELD")
        await self._change(
            name,
            # First: Qdrant takes these one after the other, and stops at one that cannot be.
            _renamed(name, Role.HELD, Role.SWITCHING),
            _points(alias(name, Role.LIVE), placement.next),
            _points(alias(name, Role.FORMER), placement.live),
            _dropped(alias(name, Role.SWITCHING)),
            _dropped(alias(name, Role.JOURNAL)),
        )

    async def _change(self, name: str, *operations: models.AliasOperations) -> None:
        try:
            async with asking(name, timeout=self._timeout):
                await self._client().update_collection_aliases(list(operations))
        except (Internal, NotFound) as fault:
            # An alias that is not there is an error of the request's to one, and a name not found to another.
            raise Aborted(
                f"the collections behind {name!r} are not what they were: {fault.message}", reason="PLACEMENT_CHANGED"
            ) from fault


def _points(alias_name: str, stored: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(alias_name=alias_name, collection_name=stored))


def _renamed(name: str, old: Role, new: Role) -> models.RenameAliasOperation:
    renamed = models.RenameAlias(old_alias_name=alias(name, old), new_alias_name=alias(name, new))
    return models.RenameAliasOperation(rename_alias=renamed)


def _dropped(alias_name: str) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias_name))
