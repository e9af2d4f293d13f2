"""What a service holds of a model, whichever kind it is: its tokenizer, its queue and its engine."""

from __future__ import annotations

from typing import Generic

from winnow_inference.engines.base import EngineDescription
from winnow_inference.models.facts import FactsT
from winnow_inference.opening import OpenModel
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.observing import Observer
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.scheduling.runner import Runner
from winnow_inference.tokenization import TextTokenizer


class HostedModel(Generic[FactsT]):
    """A model that many callers share. `start` it, share it, `close` it."""

    def __init__(self, model: OpenModel[FactsT], limits: RunnerLimits) -> None:
        self.model = model
        """The model, and what computes it."""
        self._tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
        self._runner = Runner(model.make_engine, limits)

    @property
    def facts(self) -> FactsT:
        """What is known of the model."""
        return self.model.facts

    @property
    def engine(self) -> EngineDescription:
        """What computes."""
        return self._runner.description

    @property
    def limits(self) -> RunnerLimits:
        """What may wait and run at once."""
        return self._runner.limits

    def queued_tokens(self, priority: Priority) -> int:
        """Tokens of a class that wait for the device."""
        return self._runner.queued_tokens_of(priority)

    def queued_requests(self, priority: Priority) -> int:
        """Requests of a class of which something waits for the device."""
        return self._runner.queued_requests_of(priority)

    def observe(self, observer: Observer) -> None:
        """Tells this observer, and no other, of every batch from now on."""
        self._runner.observe(observer)

    async def start(self) -> None:
        """Makes the engine."""
        await self._runner.start()

    async def close(self) -> None:
        """Ends everything; what waits is refused."""
        await self._runner.close()
        self._tokenizer.close()

    async def probe(self) -> None:
        """One small forward pass; raises if the engine cannot."""
        await self._runner.probe()
