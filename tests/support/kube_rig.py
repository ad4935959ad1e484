"""An API server, real or a stand-in, with played controllers, as a platform for the drivers' conformance suite."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from random import Random
from typing import Self

from infra.life import unix_ms
from scaler.drivers.kubernetes import KubernetesDriver
from scaler.drivers.port import Driver
from schemas.driver_config import KubernetesSection
from tests.support.kube import KubeServer
from tests.support.kube_cluster import Cluster, cluster
from tests.support.kube_stand_in import KubeStandIn

_numbers = itertools.count()


class KubeRig:
    """Pools `p` and `p-2` in a namespace of their own."""

    can = frozenset({"starts_slowly", "works", "dies", "fails"})

    def __init__(self, server: KubeServer | KubeStandIn) -> None:
        self._server = server
        self._namespace = f"rig-{next(_numbers)}"
        self._stack = contextlib.AsyncExitStack()
        self._cluster: Cluster

    async def __aenter__(self) -> Self:
        # An admin's rights: the suite asks for Deployments that no role names.
        kubeconfig = self._server.kubeconfig(self._namespace, "admin")
        self._cluster = await self._stack.enter_async_context(cluster(kubeconfig, self._namespace, []))
        for pool in ("p", "p-2"):
            await self._cluster.deploy(pool)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.go_on()
        await self._stack.aclose()

    def driver(self) -> Driver:
        section = KubernetesSection(
            kubeconfig=self._server.kubeconfig(self._namespace, "admin"), request_timeout_s=0.7, backoff_s_max=0.2
        )
        return _Patient(self._cluster, section)

    def start_slowly(self) -> None:
        self._cluster.makes_ready = False

    def let_start(self) -> None:
        self._cluster.makes_ready = True

    def keep_working(self) -> None:
        self._cluster.drains_at_once = False

    def let_finish(self) -> None:
        self._cluster.drains_at_once = True

    async def kill(self, replica: str) -> None:
        await self._cluster.die(replica)

    def crash_all(self) -> None:
        self._cluster.crashes = True

    def break_off(self) -> None:
        self._server.hang()

    def mend(self) -> None:
        self._cluster.crashes = False
        self._server.go_on()


class _Patient(KubernetesDriver):
    """Returns when the controllers have acted too: the suite compares names, which pods get from them."""

    def __init__(self, cluster: Cluster, section: KubernetesSection) -> None:
        super().__init__(section, unix_ms=unix_ms, rng=Random(3))
        self._cluster = cluster

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        await super().apply(pool, replicas, victims=victims)
        async with asyncio.timeout(10):
            while await self._cluster.staying(pool) != replicas:
                await asyncio.sleep(0.02)
