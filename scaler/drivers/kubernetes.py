"""Pools as Kubernetes Deployments: we set their size, and say which pods a smaller one should lose. Nothing else.

Pods are started, restarted and replaced by Kubernetes; they drain because it sends them SIGTERM, whoever had them
deleted: we, a person, a node's drain, a spot eviction. The truth is read anew for each answer; the watch only tells
when to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from scaler.drivers.drift import Drift
from scaler.drivers.kube_answers import FIELD_MANAGER, Conflict, Gone, Missing, Sized
from scaler.drivers.pods import Made, Pod, costs_to_set, fleet_of, pools_changed
from scaler.drivers.port import DriverRefused, DriverUnavailable, Fleet
from schemas.driver_config import KubernetesSection

if TYPE_CHECKING:
    from scaler.drivers.kube_api import KubeApi

log = logging.getLogger(__name__)

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_FIRST_PAUSE_S = 0.2
# Time for a consumer to say goodbye after its grace.
_AFTER_GRACE_S = 10


class KubernetesDriver:
    """`kube`: a client for tests."""

    def __init__(
        self,
        cfg: KubernetesSection,
        *,
        unix_ms: Callable[[], int],
        rng: Random,
        kube: KubeApi | None = None,
    ) -> None:
        self._cfg = cfg
        self._unix_ms = unix_ms
        self._rng = rng
        self._given = kube
        self._kube: KubeApi | None = None
        self._watching: asyncio.Task[None] | None = None
        self._drifts: dict[str, Drift] = {}
        self._asked_unix_ms: dict[str, int] = {}
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        return "kubernetes"

    async def open(self, on_change: Callable[[str], None]) -> None:
        try:
            from scaler.drivers.kube_api import KubeApi  # noqa: PLC0415 - an extra that most do not need
        except ImportError as error:
            raise DriverRefused("scaler.driver kubernetes needs `pip install 'penstock[kubernetes]'`") from error
        kube = self._given or KubeApi.made(self._cfg)
        try:
            # Whether anybody answers, and lets us.
            await kube.labelled()
        except BaseException:
            await kube.close()
            raise
        self._kube = kube
        self._watching = asyncio.create_task(self._watch(kube, on_change), name="kubernetes watch")
        log.info("driver.opened", extra={"driver": self.name, "namespace": kube.namespace})

    async def close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        kube, self._kube = self._kube, None
        if kube is not None:
            await kube.close()

    async def current(self, pool: str) -> Fleet:
        kube = self._opened()
        try:
            deployment = await self._look(kube, pool)
        except Missing:
            return Fleet(pool=pool, unix_ms=self._unix_ms())
        pods = await kube.pods(deployment.selector)
        self._warn_of_short_ends(pool, pods)
        made = Made(
            replicas=deployment.replicas,
            hindrance=deployment.hindrance,
            # Where another scaler has asked, it counts from when we first saw it.
            asked_unix_ms=self._asked_unix_ms.setdefault(pool, self._unix_ms()),
        )
        return fleet_of(pool, deployment.name, made, pods, self._unix_ms())

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        kube = self._opened()
        deployment = await self._look(kube, pool)
        if deployment.replicas != replicas:
            self._refuse_to_fight(pool, deployment)
            if deployment.replicas > replicas:
                await self._mark(kube, deployment, replicas, victims)
            await self._resize(kube, pool, deployment, replicas)
        self._drift(pool).asked(replicas)

    def _opened(self) -> KubeApi:
        if self._kube is None:
            raise DriverUnavailable("the Kubernetes driver is not open")
        return self._kube

    async def _look(self, kube: KubeApi, pool: str) -> Sized:
        found = await kube.deployment(self._deployment_of(pool))
        now_s = asyncio.get_running_loop().time()
        if self._drift(pool).saw(found.replicas, now_s, is_ours=found.changed_by == FIELD_MANAGER):
            fields = {
                "pool": pool,
                "deployment": found.name,
                "replicas": found.replicas,
                "changed_by": found.changed_by,
            }
            log.warning("driver.drifted", extra=fields)
        return found

    def _refuse_to_fight(self, pool: str, deployment: Sized) -> None:
        if not self._drift(pool).is_contested(asyncio.get_running_loop().time()):
            return
        other, size = deployment.changed_by or "somebody else", deployment.replicas
        raise DriverRefused(
            f"Deployment {deployment.name} is resized by {other} again and again, so it stays at {size}: "
            f"take the other autoscaler away, or the pool from this one; a person overrides with `penstock scale`"
        )

    async def _mark(self, kube: KubeApi, deployment: Sized, replicas: int, victims: Sequence[str]) -> None:
        """Before the resize, and acknowledged: the ReplicaSet's controller is to see the marks when it must choose."""
        pods = await kube.pods(deployment.selector)
        for name, cost in costs_to_set(pods, replicas, victims).items():
            with contextlib.suppress(Gone):
                await kube.set_cost(name, cost)

    async def _resize(self, kube: KubeApi, pool: str, before: Sized, replicas: int) -> None:
        for tries in range(self._cfg.conflicts_max):
            # Looked at anew each time, so that little can come between a look and its write.
            now = await self._look(kube, pool) if tries or before.replicas > replicas else before
            if now.replicas == replicas:
                return
            if now.replicas != before.replicas:
                # Whoever it was has seen what we have not: nothing is written over it before another tick's look.
                change = f"resized from {before.replicas} to {now.replicas} by somebody else just now"
                raise DriverUnavailable(f"Deployment {now.name} was {change}; the next tick decides")
            self._drift(pool).asking(replicas)
            try:
                await kube.set_replicas(now.name, replicas, now.version)
            except Conflict:
                await asyncio.sleep(self._pause_s(tries))
                continue
            self._asked_unix_ms[pool] = self._unix_ms()
            fields = {"pool": pool, "deployment": now.name, "replicas": replicas, "were": before.replicas}
            log.info("driver.resized", extra=fields)
            return
        raise DriverUnavailable(f"Deployment {before.name} changes faster than it can be resized")

    async def _watch(self, kube: KubeApi, on_change: Callable[[str], None]) -> None:
        seen: dict[str, tuple[str, Pod]] = {}
        failures = 0
        while True:
            try:
                listed, version = await kube.labelled()
                for pool in pools_changed(seen, listed):
                    on_change(pool)
                seen = listed
                async with contextlib.aclosing(kube.changes(version)) as changes:
                    async for pool, pod, is_there in changes:
                        failures = 0
                        now = {**seen, pod.name: (pool, pod)} if is_there else _without(seen, pod.name)
                        for changed in pools_changed(seen, now):
                            on_change(changed)
                        seen = now
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the fleet must not go unwatched
                pause_s = self._pause_s(failures)
                failures += 1
                log.warning("driver.unwatched", extra={"error": str(error), "retry_in_s": round(pause_s, 1)})
                await asyncio.sleep(pause_s)

    def _deployment_of(self, pool: str) -> str:
        name = self._cfg.deployments.get(pool) or self._cfg.deployment.replace("{pool}", pool)
        if not _KUBERNETES_NAME.fullmatch(name):
            raise DriverRefused(
                f"pool {pool!r} makes no Kubernetes name ({name!r}): give one in scaler.kubernetes.deployments",
                param="scaler.kubernetes.deployments",
            )
        return name

    def _drift(self, pool: str) -> Drift:
        made = Drift(times_max=self._cfg.drifts_max, window_s=self._cfg.drift_window_s)
        return self._drifts.setdefault(pool, made)

    def _pause_s(self, failures: int) -> float:
        longest = min(self._cfg.backoff_s_max, _FIRST_PAUSE_S * 2.0 ** min(failures, 16))
        return longest * self._rng.uniform(0.5, 1.0)

    def _warn_of_short_ends(self, pool: str, pods: Sequence[Pod]) -> None:
        short = [pod for pod in pods if pod.termination_s < pod.grace_s + _AFTER_GRACE_S]
        if short and pool not in self._warned:
            self._warned.add(pool)
            has_s, needs_s = short[0].termination_s, short[0].grace_s + _AFTER_GRACE_S
            fields = {"pool": pool, "terminationGracePeriodSeconds": has_s, "needed_s": needs_s}
            log.warning("driver.kills_at_work", extra=fields)


def _without(pods: dict[str, tuple[str, Pod]], name: str) -> dict[str, tuple[str, Pod]]:
    return {other: found for other, found in pods.items() if other != name}
