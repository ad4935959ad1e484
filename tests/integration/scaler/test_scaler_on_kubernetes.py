"""Scalers, a broker and consumers as real processes around a real API server: each pod is a consumer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import yaml
from lightkube.resources.core_v1 import Pod

from infra.broker import connect
from infra.life import unix_ms
from producer import decisions
from producer.client import Client
from schemas.config import BrokerSection
from schemas.override import Override
from schemas.result import Status
from tests.support.broker import TestBroker
from tests.support.consumer import ConsumerProcess, ScalerProcess
from tests.support.kube import KubeServer
from tests.support.kube_cluster import Cluster, cluster
from tests.support.scaled import ENGINE, a_scaler, until

ROLE = Path(__file__).parents[3] / "infra" / "kubernetes" / "scaler-role.yaml"
DEPLOYMENT = "penstock-consumer-default"
POOL: dict[str, Any] = {"maximum": 3, "cold_start_s": 1.0, "idle_s": 1.0, "waits_s": {"standard": 5.0}}
_namespaces = itertools.count(35)


class Kubelet:
    """Runs a consumer for each pod, under the pod's name."""

    def __init__(self, cluster: Cluster, url: str, folder: Path) -> None:
        self._cluster = cluster
        self._url = url
        self._folder = folder
        self._consumers: dict[str, ConsumerProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        cluster.makes_ready = cluster.drains_at_once = False

    async def run(self) -> None:
        while True:
            for pod in await self._cluster.pods():
                name = pod.metadata.name
                if name not in self._consumers:
                    own = ("--consumer.name", name, *ENGINE, "--engine.step_s", "0.02")
                    self._consumers[name] = ConsumerProcess(self._url, self._folder, *own)
                    task = asyncio.create_task(self._live(name, self._consumers[name]))
                    self._tasks.add(task)
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for consumer in self._consumers.values():
            await consumer.kill()

    async def _live(self, name: str, consumer: ConsumerProcess) -> None:
        await consumer.start()
        await self._cluster.ready(name)
        while not await self._is_leaving(name):
            await asyncio.sleep(0.05)
        consumer.signal(signal.SIGTERM)
        await consumer.wait(60)
        await self._cluster.finish(name)

    async def _is_leaving(self, name: str) -> bool:
        pod = await self._cluster.client.get(Pod, name)
        return pod.metadata.deletionTimestamp is not None


@contextlib.asynccontextmanager
async def kubernetes(server: KubeServer, url: str, folder: Path) -> AsyncGenerator[tuple[Cluster, str]]:
    """A namespace with an empty pool, and the scaler's own kubeconfig."""
    namespace = f"t{next(_namespaces)}"
    role = list(yaml.safe_load_all(ROLE.read_text()))
    async with cluster(server.kubeconfig(namespace, "admin"), namespace, role) as made:
        await made.deploy("default", 0)
        kubelet = Kubelet(made, url, folder)
        running = asyncio.create_task(kubelet.run())
        try:
            yield made, server.kubeconfig(namespace)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await kubelet.end()


def on_kubernetes(url: str, folder: Path, kubeconfig: str, name: str) -> ScalerProcess:
    driver = ("--scaler.driver", "kubernetes", "--scaler.kubernetes.kubeconfig", kubeconfig)
    return a_scaler(url, folder, *driver, pools={"default": POOL}, name=name)


async def nobody(url: str) -> None:
    """As `penstock scale --pool default 0` does."""
    broker = await connect(BrokerSection(), name="a person", url=url)
    await decisions.ask_for(broker, "default", Override(replicas=0, until_unix_ms=0, set_unix_ms=unix_ms()))
    await broker.close()


def turns(sizes: list[int]) -> int:
    """How often a size went the other way."""
    ways = [after > before for before, after in itertools.pairwise(sizes)]
    return sum(one != other for one, other in itertools.pairwise(ways))


def chat(tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, "min_tokens": tokens}


def test_from_zero_and_back_with_a_leader_killed_on_the_way(kube: KubeServer, tmp_path: Path) -> None:
    async def scene(url: str) -> None:
        async with (
            kubernetes(kube, url, tmp_path) as (cluster, kubeconfig),
            on_kubernetes(url, tmp_path, kubeconfig, "first") as first,
            on_kubernetes(url, tmp_path, kubeconfig, "second") as second,
            Client(url, pool="default") as client,
        ):
            await until(lambda: "scaler.leads" in first.log + second.log)
            leader, standby = (first, second) if "scaler.leads" in first.log else (second, first)
            jobs = [await client.submit(chat(150), lane="standard") for _ in range(400)]
            await until(lambda: cluster.sizes[DEPLOYMENT][-1] > 0)
            await leader.kill_alone()
            await until(lambda: "scaler.leads" in standby.log)

            results = await asyncio.gather(*[job.result() for job in jobs])
            # By hand: the policy keeps what the last minutes needed.
            await nobody(url)
            await until(lambda: cluster.sizes[DEPLOYMENT][-1] == 0)

            assert {(one.status, one.attempt) for one in results} == {(Status.COMPLETED, 1)}
            assert turns(cluster.sizes[DEPLOYMENT]) == 1, cluster.sizes
            assert "driver.drifted" not in first.log + second.log
            # They drained, and went.
            async with asyncio.timeout(60):
                while await cluster.pods():
                    await asyncio.sleep(0.1)

    async def whole() -> None:
        async with TestBroker(tmp_path / "broker") as broker:
            await scene(broker.url)

    asyncio.run(whole())
