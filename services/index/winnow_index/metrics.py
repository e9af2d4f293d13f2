"""Metrics of the index: what it holds, what waits for a graph, the room on disk, and the builds.

Collections are named in labels, the largest of them alone: callers make collections without bound, and each label would
be a series for as long as Prometheus keeps it. What the others hold is summed under OTHERS.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from winnow_index.collection import Collection
from winnow_index.disk_room import bytes_in
from winnow_index.optimizing import BuildOutcome, Optimizer
from winnow_index.store import Store
from winnow_rpc.faults import Fault
from winnow_rpc.metrics import on_loop

MOST_NAMED = 100
"""Collections that have labels of their own."""
OTHERS = "(others)"
"""The label of the rest together."""

_BUILD_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True)
class Held:
    """A collection as it stands."""

    name: str
    points: int
    indexed_points: int
    """Those that the graph holds, as of when the optimizer last counted."""
    lag_points: int
    """Points that wait for a graph that is due or being built; 0 where there are too few for one to be worth while."""
    folder: Path


def named(held: Iterable[Held], *, most: int = MOST_NAMED) -> dict[str, list[Held]]:
    """Label → the collections that it stands for: the largest by points have their own names."""
    ordered = sorted(held, key=lambda each: (-each.points, each.name))
    labels = {each.name: [each] for each in ordered[:most]}
    if rest := ordered[most:]:
        labels.setdefault(OTHERS, []).extend(rest)
    return labels


class IndexCollector(Collector):
    """Reads, when asked, the collections on the event loop and their folders in the thread that asks."""

    def __init__(self, store: Store, optimizer: Optimizer, *, folder: Path) -> None:
        self._held = on_loop(lambda: _held(store, optimizer))
        self._folder = folder

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics as they are now."""
        held = self._held()
        collections = GaugeMetricFamily("winnow_index_collections", "Collections that are open.")
        collections.add_metric([], len(held))
        points, indexed, lag, size = (
            GaugeMetricFamily(f"winnow_index_{name}", text, labels=["collection"])
            for name, text in (
                ("points", "Points."),
                ("indexed_points", "Points that the HNSW graph holds, as of the last count."),
                ("lag_points", "Points that wait for an HNSW graph that is due or being built."),
                ("disk_bytes", "Bytes on disk, a build in progress included."),
            )
        )
        for label, those in named(held).items():
            points.add_metric([label], sum(each.points for each in those))
            indexed.add_metric([label], sum(each.indexed_points for each in those))
            lag.add_metric([label], sum(each.lag_points for each in those))
            size.add_metric([label], sum(bytes_in(each.folder) for each in those))
        usage = shutil.disk_usage(self._folder)
        room = GaugeMetricFamily("winnow_index_volume_bytes", "Size of the volume that holds the data.")
        room.add_metric([], usage.total)
        free = GaugeMetricFamily("winnow_index_volume_free_bytes", "Bytes that are free on that volume.")
        free.add_metric([], usage.free)
        return [collections, points, indexed, lag, size, room, free]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: else the registry would collect to learn the names, before there is anything to read."""
        return []


class BuildMetrics:
    """Counts builds of graphs as they end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "winnow_index_builds", "Builds of HNSW graphs that have ended, by outcome.", ["outcome"], registry=registry
        )
        for outcome in get_args(BuildOutcome):
            # At 0 from the start, or the first one would be no increase.
            self._ended.labels(outcome)
        self._seconds = Histogram(
            "winnow_index_build_seconds",
            "Time of builds, copying and replaying included.",
            registry=registry,
            buckets=_BUILD_SECONDS,
        )

    def ended(self, outcome: BuildOutcome, seconds: float) -> None:
        """Counts a build."""
        self._ended.labels(outcome).inc()
        self._seconds.observe(seconds)


def measure(registry: CollectorRegistry, store: Store, optimizer: Optimizer, *, folder: Path) -> None:
    """Adds the index's metrics to a registry. Call on the event loop that it lives on."""
    registry.register(IndexCollector(store, optimizer, folder=folder))
    optimizer.on_build = BuildMetrics(registry).ended
    building = Gauge("winnow_index_builds_in_progress", "Builds of HNSW graphs in progress.", registry=registry)
    building.set_function(on_loop(lambda: float(sum(collection.building for collection in store))))


def _held(store: Store, optimizer: Optimizer) -> Sequence[Held]:
    found = []
    for collection in store:
        try:
            found.append(_one(collection, optimizer))
        except Fault:
            continue  # deleted a moment ago
    return found


def _one(collection: Collection, optimizer: Optimizer) -> Held:
    # Asked first: where a build may be due it brings `written_since_count` up to date. Counting the graph's vectors at
    # every scrape would hold up searches.
    due = optimizer.wants_build(collection) or collection.building
    points = collection.info().points_count
    unindexed = min(points, collection.written_since_count)
    return Held(
        name=collection.name,
        points=points,
        indexed_points=points - unindexed,
        lag_points=unindexed if due else 0,
        folder=collection.directory.path,
    )
