"""`winnow bench containers`: the images on a container engine: cold start, memory, and rerankers side by side."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.progress import Progress

from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_client import Client, ClientConfig, Document, SearchMode
from winnow_client.cli.output import table
from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_lab import bench_report
from winnow_lab.bench_figures import percentiles

PORTS = {"index": 6334, "embedder": 50051, "reranker": 50052, "gateway": 50050}
START_SECONDS = 240.0
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108
QUERY = "how to cancel all tasks when one of them fails"
MIB = 2**20


class Engine:
    """Containers of one benchmark, on a network of their own. Enter it; nothing of it is left at the end."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._name = f"winnow-bench-{uuid.uuid4().hex[:8]}"
        self._over = ExitStack()

    def __enter__(self) -> Engine:
        docker("network", "create", self._name)
        self._over.callback(docker, "network", "rm", self._name)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.close()

    def volume(self) -> str:
        """An empty volume; removed at the end, after the containers that are started from now on."""
        name = docker("volume", "create")
        self._over.callback(docker, "volume", "rm", "--force", name)
        return name

    def start(self, service: str, *more: str) -> tuple[str, str, float]:
        """(id, host:port, seconds to SERVING) of a new container; removed at the end."""
        port = PORTS[service]
        began = time.perf_counter()
        # fmt: off
        container = docker(
            "run", "--detach", *CONFINED, "--network", self._name, "--network-alias", service,
            "--publish", f"127.0.0.1::{port}", *more, f"winnow-{service}:{self._tag}",
        )
        # fmt: on
        self._over.callback(docker, "rm", "--force", "--volumes", container)
        address = docker("port", container, str(port)).splitlines()[0]
        while not _serving(address):
            if time.perf_counter() - began > START_SECONDS:
                raise click.ClickException(f"{service} does not serve within {START_SECONDS:g} s")
            time.sleep(0.02)
        return container, address, round(time.perf_counter() - began, 2)

    def remove(self, container: str) -> None:
        """Removes a container before the end."""
        docker("rm", "--force", "--volumes", container)


def docker(*arguments: str) -> str:
    """What a docker command prints. Raises ClickException with what it says if it ends badly."""
    try:
        ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError as error:
        raise click.ClickException("there is no docker command") from error
    # A container that is removed twice is gone, which is what was wanted.
    if ended.returncode and "No such container" not in ended.stderr:
        raise click.ClickException(f"docker {arguments[0]}: {ended.stderr.strip()}")
    return ended.stdout.strip()


def _serving(address: str) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def memory_mib(container: str) -> float:
    """What the engine counts of a container, page cache left out as `docker stats` does it."""
    used = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", container))["MemUsage"].split("/")[0]
    for unit, factor in (("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1 / 1024), ("B", 1 / MIB)):
        if used.strip().endswith(unit):
            return round(float(used.strip().removesuffix(unit)) * factor, 1)
    raise click.ClickException(f"docker stats says {used!r}")


def image_mb(tag: str) -> dict[str, float]:
    """Size of each image in MB, uncompressed."""
    return {
        service: round(int(docker("image", "inspect", "--format", "{{.Size}}", f"winnow-{service}:{tag}")) / 1e6, 1)
        for service in PORTS
    }


def cold_starts(tag: str, progress: Progress) -> dict[str, Any]:
    """Seconds from `docker run` to SERVING: with an empty volume, and of a new container on the volume that it left."""
    task = progress.add_task("start", total=2 * len(PORTS))
    found: dict[str, Any] = {}
    with Engine(tag) as engine:
        engine.start("index")
        for service in PORTS:
            more = ("--env", "WINNOW_GATEWAY_INDEX=index:6334") if service == "gateway" else ()
            place = "/var/lib/winnow" if service == "index" else "/var/cache/winnow"
            mounted = () if service == "gateway" else ("--volume", f"{engine.volume()}:{place}")
            seconds = []
            for _ in range(2):
                container, _, taken = engine.start(service, *mounted, *more)
                engine.remove(container)
                seconds.append(taken)
                progress.advance(task)
            found[service] = {"first": seconds[0], "later": seconds[1]}
    return found


def memory(tag: str, documents: Sequence[Document], searches: int, progress: Progress) -> dict[str, Any]:
    """MiB of each container once all serve, and the most that was seen while documents and searches came in."""
    task = progress.add_task("memory", total=None)
    with Engine(tag) as engine:
        # With volumes, as in docker-compose.yml: where nothing can be kept, a service converts in its own process.
        places = {"index": "/var/lib/winnow", "embedder": "/var/cache/winnow", "reranker": "/var/cache/winnow"}
        ids = {
            service: engine.start(service, "--volume", f"{engine.volume()}:{place}")[0]
            for service, place in places.items()
        }
        # fmt: off
        ids["gateway"], address, _ = engine.start(
            "gateway", "--env", "WINNOW_GATEWAY_INDEX=index:6334", "--env", "WINNOW_GATEWAY_EMBEDDER=embedder:50051",
            "--env", "WINNOW_GATEWAY_RERANKER=reranker:50052",
        )
        # fmt: on
        rest = {service: memory_mib(container) for service, container in ids.items()}
        most = dict(rest)
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                for service, container in ids.items():
                    most[service] = max(most[service], memory_mib(container))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with Client(config=ClientConfig(target=address, timeout_seconds=600)) as client:
                client.create_collection("bench")
                for _ in client.ingest("bench", documents):
                    pass
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda _: client.search("bench", QUERY, mode=SearchMode.TWO_STAGE), range(searches)))
        finally:
            over.set()
            watcher.join()
    progress.update(task, total=1, completed=1)
    return {"documents": len(documents), "searches": searches, "at_rest": rest, "most": most}


def replicas(tag: str, cpus: float, seconds: float, texts: Sequence[str], progress: Progress) -> list[dict[str, Any]]:
    """Pairs a second of 1, 2 and 3 rerankers, each held to `cpus`, asked in turn by gRPC's round robin."""
    rows: list[dict[str, Any]] = []
    with Engine(tag) as engine:
        # The plan for one thread is measured once, without a limit, and kept.
        more = ("--volume", f"{engine.volume()}:/var/cache/winnow", "--env", "WINNOW_RERANKER_THREADS=1")
        engine.remove(engine.start("reranker", *more)[0])
        addresses: list[str] = []
        task = progress.add_task("rerankers", total=3)
        for count in (1, 2, 3):
            addresses.append(engine.start("reranker", *more, "--cpus", str(cpus))[1])
            rows.append({"replicas": count, **_pairs_per_second(addresses, seconds, texts)})
            progress.advance(task)
    for row in rows:
        row["ratio"] = round(row["pairs_per_second"] / rows[0]["pairs_per_second"], 2)
    return rows


def _pairs_per_second(addresses: Sequence[str], seconds: float, texts: Sequence[str]) -> dict[str, Any]:
    balanced = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    options = [("grpc.service_config", balanced), ("grpc.enable_http_proxy", 0)]
    latencies: list[float] = []
    with grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options=options) as channel:
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        request = reranker_pb2.RerankDocumentsRequest(query=QUERY, documents=texts)
        for _ in range(2 * len(addresses)):
            stub.RerankDocuments(request, timeout=60, wait_for_ready=True)
        began = time.perf_counter()
        until = began + seconds

        def ask(_: int) -> None:
            while time.perf_counter() < until:
                sent = time.perf_counter()
                stub.RerankDocuments(request, timeout=60)
                latencies.append((time.perf_counter() - sent) * 1000)

        # Two calls in hand for each replica: one computes while the next waits.
        with ThreadPoolExecutor(2 * len(addresses)) as pool:
            list(pool.map(ask, range(2 * len(addresses))))
        taken = time.perf_counter() - began
    return {
        "pairs_per_second": round(len(latencies) * len(texts) / taken, 1),
        "calls": len(latencies),
        "milliseconds": percentiles(latencies),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    rows = table("image", "MB", "first start, s", "later start, s", "MiB at rest", "MiB at most", right=("MB",))
    for service in PORTS:
        starts, held = report["start_seconds"][service], report["memory_mib"]
        cells = (report["image_mb"][service], starts["first"], starts["later"])
        rows.add_row(service, *map(str, cells), str(held["at_rest"][service]), str(held["most"][service]))
    console.print(rows)
    share = table("rerankers", "pairs/s", "ratio", "p50, ms", right=("pairs/s", "ratio", "p50, ms"))
    for row in report["rerankers"]["rows"]:
        figures = (row["replicas"], row["pairs_per_second"], row["ratio"], row["milliseconds"]["p50"])
        share.add_row(*map(str, figures))
    console.print(f"each reranker held to {report['rerankers']['cpus']:g} of {os.cpu_count()} cores")
    console.print(share)


@click.command(epilog="Example: winnow bench containers --tag 0.1.0 --cpus 0.5")
@click.option("--tag", default="0.1.0", show_default=True, help="Tag of the images, which have to be there.")
@click.option("--documents", type=click.IntRange(1), default=500, show_default=True, help="Documents to ingest.")
@click.option("--searches", type=click.IntRange(1), default=40, show_default=True, help="Two-stage searches.")
@click.option(
    "--cpus", type=click.FloatRange(0.1), default=0.5, show_default=True, help="Cores that each reranker may use."
)
@click.option(
    "--seconds", type=click.FloatRange(1), default=15, show_default=True, help="Load per number of rerankers."
)
@bench_report.report_options
def containers(
    *, tag: str, documents: int, searches: int, cpus: float, seconds: float, out: Path, machine_readable: bool
) -> None:
    """Measure the images on this machine's container engine: cold start, memory, and rerankers side by side."""

    def measure() -> dict[str, Any]:
        with bench_report.progress() as progress:
            corpus = list(stdlib_documents())[:documents]
            sizes = image_mb(tag)
            return {
                "image_mb": sizes,
                "start_seconds": cold_starts(tag, progress),
                "memory_mib": memory(tag, corpus, searches, progress),
                "rerankers": {
                    "cpus": cpus,
                    "rows": replicas(tag, cpus, seconds, [each.text for each in corpus[:20]], progress),
                },
            }

    bench_report.report("containers", measure, out=out, machine_readable=machine_readable, show=show)
