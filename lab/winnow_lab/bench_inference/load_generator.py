"""Load on our services from a process of its own, so that it keeps its pace whatever else happens.

`peers/worker.py` runs it. Latencies are seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from typing import Any

import grpc

from winnow_lab.bench_figures import arrivals
from winnow_lab.bench_inference.calls import EmbedderCalls, RerankerCalls
from winnow_lab.bench_inference.checking import Checker
from winnow_lab.bench_inference.plan import GROUP

# A call of an open loop that takes longer has been forgotten.
_REFUSED_SECONDS = 0.01
_OPEN_LOOP_TIMEOUT = 60.0


class Contestant:
    """Makes load when told to. Each method runs its own event loop to its end."""

    def queries(
        self, *, address: str, texts: list[str], count: int, clients: int, seconds: float, per_call: int = 1
    ) -> dict[str, Any]:
        """A closed loop of calls of so many texts: each client sends its next one when it has its answer.

        Ends after `count` queries or after `seconds`, whichever comes first.
        """
        return asyncio.run(_queries(address, calls_of(texts, per_call), count, clients, seconds))

    def overload(self, *, address: str, texts: list[str], rate: float, seconds: float, per_call: int) -> dict[str, Any]:
        """An open loop of calls of so many texts: `rate` of them begin every second, whatever becomes of those
        before."""
        return asyncio.run(_overload(address, calls_of(texts, per_call), rate, seconds))

    def mixed(
        self, *, address: str, texts: list[str], passages: list[str], rate: float, seconds: float
    ) -> dict[str, Any]:
        """A bulk stream without end beside one client of `rate` queries a second; no passages, or rate 0: without."""
        return asyncio.run(_mixed(address, texts, passages, rate, seconds))

    def soak(self, **arguments: Any) -> dict[str, Any]:
        """Bulk, queries and reranking at once, every result checked; the arguments are those of `_soak`."""
        return asyncio.run(_soak(**arguments))

    def close(self) -> None:
        """Nothing to do: the process ends."""


def calls_of(texts: Sequence[str], per_call: int) -> list[tuple[str, ...]]:
    """Texts in groups of one size; what is left over is left out, unless there is nothing else."""
    groups = [tuple(texts[start : start + per_call]) for start in range(0, len(texts), per_call)]
    return [group for group in groups if len(group) == per_call] or groups


async def _queries(
    address: str, texts: Sequence[tuple[str, ...]], count: int, clients: int, seconds: float
) -> dict[str, Any]:
    async with EmbedderCalls(address) as calls:
        left = islice(cycle(texts), count)
        taken: list[float] = []
        began = time.perf_counter()

        async def client() -> None:
            for group in left:
                if time.perf_counter() - began > seconds:
                    return
                sent = time.perf_counter()
                try:
                    await calls.embed_query(*group)
                except grpc.aio.AioRpcError as error:
                    # As many clients may ask for a little more than it takes on; that is no end.
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(_REFUSED_SECONDS)
                else:
                    taken.append(time.perf_counter() - sent)

        await asyncio.gather(*(client() for _ in range(clients)))
        return {"latencies": taken, "seconds": time.perf_counter() - began}


async def _overload(address: str, texts: Sequence[tuple[str, ...]], rate: float, seconds: float) -> dict[str, Any]:
    accepted: list[float] = []
    refused: list[float] = []
    failed: list[str] = []
    lags: list[float] = []
    async with EmbedderCalls(address) as calls:
        await calls.embed_query(*texts[0])

        async def send(group: tuple[str, ...]) -> None:
            sent = time.perf_counter()
            try:
                await calls.embed_query(*group, timeout=_OPEN_LOOP_TIMEOUT)
                accepted.append(time.perf_counter() - sent)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    refused.append(time.perf_counter() - sent)
                else:
                    failed.append(_said(error))

        async with asyncio.TaskGroup() as sending:
            began = time.perf_counter()
            for at, group in zip(arrivals(rate, seconds), cycle(texts), strict=False):
                if (wait := began + at - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                elif not len(lags) % 10:
                    await asyncio.sleep(0)  # behind: answers must be taken all the same
                lags.append(time.perf_counter() - began - at)
                sending.create_task(send(group))
            sent_seconds = time.perf_counter() - began
    return {"accepted": accepted, "refused": refused, "failed": failed, "lags": lags, "sent_seconds": sent_seconds}


async def _mixed(address: str, texts: list[str], passages: list[str], rate: float, seconds: float) -> dict[str, Any]:
    async with EmbedderCalls(address) as calls:
        began = time.perf_counter()
        # The stream has to fill the queue before a query beside it means something.
        counted_from = began + min(1.0, seconds / 4)
        taken: list[float] = []
        completed, bulk_ended = 0, 0.0 if passages else began

        async def ask(text: str) -> None:
            sent = time.perf_counter()
            await calls.embed_query(text)
            if sent > counted_from:
                taken.append(time.perf_counter() - sent)

        async def bulk() -> None:
            nonlocal completed, bulk_ended
            async for group, _ in calls.embed_while(_groups(passages, began + seconds)):
                completed += len(group)
            bulk_ended = time.perf_counter()

        def over() -> bool:
            # All that the stream was given is counted, so the queries go on beside it until it is done.
            return bool(bulk_ended) and time.perf_counter() >= began + seconds

        async with asyncio.TaskGroup() as together:
            if passages:
                together.create_task(bulk())
            if rate:
                together.create_task(_paced(ask, texts, rate, over))
        return {"latencies": taken, "bulk_per_second": completed / (bulk_ended - began) if completed else 0.0}


async def _soak(
    *,
    embedder: str,
    reranker: str,
    queries: list[str],
    passages: list[str],
    candidates: list[list[str]],
    query_rate: float,
    rerank_rate: float,
    seconds: float,
) -> dict[str, Any]:
    """`candidates` are the documents for each of the first queries. Later results must be like the first ones."""
    async with AsyncExitStack() as stack:
        embedding = await stack.enter_async_context(EmbedderCalls(embedder))
        reranking = await stack.enter_async_context(RerankerCalls(reranker))
        check = Checker()
        errors: list[str] = []
        latencies: dict[str, list[float]] = {"query": [], "rerank": []}

        async def ask(text: str) -> None:
            sent = time.perf_counter()
            answer = await embedding.embed_query(text)
            latencies["query"].append(time.perf_counter() - sent)
            check.vectors([("query", text)], answer.vectors)

        async def rerank(text: str) -> None:
            documents = candidates[queries.index(text)]
            seconds_taken, answer = await reranking.rerank(text, documents)
            latencies["rerank"].append(seconds_taken)
            check.scores(text, answer.scores)

        async def bulk(until: float) -> None:
            async for texts, answer in embedding.embed_while(_groups(passages, until)):
                check.vectors([("passage", text) for text in texts], answer.vectors)

        def guarded(call: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
            async def guard(text: str) -> None:
                try:
                    await call(text)
                except grpc.aio.AioRpcError as error:
                    errors.append(_said(error))

            return guard

        # Each kind alone, once: what later results are held to was computed beside no other work.
        await bulk(0.0)
        for text in queries:
            await ask(text)
        for text in queries[: len(candidates)]:
            await rerank(text)
        check.begin()
        for taken in latencies.values():
            taken.clear()
        end = time.perf_counter() + seconds

        def over() -> bool:
            return time.perf_counter() >= end

        async with asyncio.TaskGroup() as together:
            together.create_task(bulk(end))
            together.create_task(_paced(guarded(ask), queries, query_rate, over))
            together.create_task(_paced(guarded(rerank), queries[: len(candidates)], rerank_rate, over))
        return {"checked": check.report(), "errors": errors, "latencies": latencies}


async def _paced(
    call: Callable[[str], Awaitable[None]], texts: Sequence[str], rate: float, over: Callable[[], bool]
) -> None:
    """One client that sends `rate` calls a second, or as many as it gets answered, until it is over."""
    due = time.perf_counter()
    for text in cycle(texts):
        if over():
            return
        await call(text)
        due = max(due + 1 / rate, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())


def _said(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"


async def _groups(passages: Sequence[str], end: float) -> AsyncIterator[Sequence[str]]:
    """Groups of passages, over and over until the end; an end that has passed stands for once."""
    once = end <= time.perf_counter()
    while True:
        for start in range(0, len(passages), GROUP):
            if not once and time.perf_counter() >= end:
                return
            yield passages[start : start + GROUP]
        if once:
            return
