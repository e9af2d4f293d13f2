"""Two embedders side by side, while one model takes the place of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from winnow_gateway.collections import EmbedderModel
from winnow_gateway.ports import EmbeddedTexts, Embedder
from winnow_rpc.faults import FailedPrecondition, Fault

CURRENT, FORMER = "embedder", "former_embedder"


class Embedders:
    """Implements `ports.Embedder`: each text goes to the embedder that serves the model asked for.

    The current one fills new collections; the former one is there for those that its model filled. Which model each
    serves is remembered as it was last seen, so that a search asks nobody first; the embedder itself refuses what is
    not for it.
    """

    def __init__(self, current: Embedder, former: Embedder | None = None) -> None:
        self._embedders = {CURRENT: current} | ({FORMER: former} if former else {})
        self._served: dict[str, str] = {}

    @property
    def backends(self) -> Sequence[str]:
        """Names of the embedders."""
        return list(self._embedders)

    def backend(self, fingerprint: str) -> str:
        """Which of them embeds for a model, as far as is known; where none is known to, one that has not said yet."""
        serving = (name for name in self._embedders if self._served.get(name) == fingerprint)
        silent = (name for name in self._embedders if name not in self._served)
        return next(serving, None) or next(silent, CURRENT)

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> EmbedderModel:
        """The current model; the former one if that has this fingerprint."""
        if fingerprint:
            await self._find(fingerprint, timeout)
        name = self.backend(fingerprint) if fingerprint else CURRENT
        model = await self._embedders[name].model(timeout=timeout)
        self._served[name] = model.fingerprint
        return model

    async def embed_query(self, query: str, *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        """The vector of a query."""
        return await self._embed(
            fingerprint, timeout, lambda one: one.embed_query(query, fingerprint=fingerprint, timeout=timeout)
        )

    async def embed_passages(
        self, passages: Sequence[str], *, fingerprint: str, timeout: float | None = None
    ) -> EmbeddedTexts:
        """Vectors of passages, as bulk work."""
        return await self._embed(
            fingerprint, timeout, lambda one: one.embed_passages(passages, fingerprint=fingerprint, timeout=timeout)
        )

    async def _embed(
        self, fingerprint: str, timeout: float | None, call: Callable[[Embedder], Awaitable[EmbeddedTexts]]
    ) -> EmbeddedTexts:
        await self._find(fingerprint, timeout)
        tried = self.backend(fingerprint)
        try:
            return await call(self._embedders[tried])
        except FailedPrecondition:
            # It serves another model by now; the other one may serve this one.
            self._served.clear()
            await self._find(fingerprint, timeout)
            if self.backend(fingerprint) == tried:
                raise
            return await call(self._embedders[self.backend(fingerprint)])

    async def _find(self, fingerprint: str, timeout: float | None) -> None:
        """Asks the embedders what they serve, unless one is known to serve this or there is only one."""
        if len(self._embedders) == 1 or fingerprint in self._served.values():
            return
        for name, embedder in self._embedders.items():
            try:
                self._served[name] = (await embedder.model(timeout=timeout)).fingerprint
            except Fault:
                continue  # away: whoever needs it will be told by the call itself
            if self._served[name] == fingerprint:
                return
