"""What a cluster does around an API server, played in one loop: Deployments get their pods, pods run, die and drain.

It deletes as the ReplicaSet controller does (not ready before ready, then by `pod-deletion-cost`, then the younger),
written down here a second time on purpose, and a deleted pod stays until `finish` says that it has drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
from collections.abc import AsyncGenerator
from typing import Any

from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding
from lightkube.types import PatchType

EVERY_S = 0.03
COST = "controller.kubernetes.io/pod-deletion-cost"


class Cluster:
    """One namespace."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        # Pods become ready at once; else `ready` says which.
        self.makes_ready = True
        # Deleted pods go at once; else `finish` says which.
        self.drains_at_once = True
        # Containers end as soon as they start.
        self.crashes = False
        # The controllers do nothing.
        self.is_idle = False
        # By Deployment, every size it was seen to have, in order.
        self.sizes: dict[str, list[int]] = {}
        self.deleted: list[str] = []
        # Containers that died, by pod, and how often.
        self._died: dict[str, int] = {}
        self._back_off: set[str] = set()
        self._numbers = itertools.count()

    async def deploy(self, pool: str = "default", replicas: int = 0, *, arguments: list[str] | None = None) -> str:
        """A Deployment as the chart makes it, in short; its name."""
        name = f"penstock-consumer-{pool}"
        labels = {"app.kubernetes.io/component": "consumer", "penstock/pool": pool}
        body = Deployment.from_dict(
            {
                "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "terminationGracePeriodSeconds": 60,
                            "containers": [{"name": "consumer", "image": "penstock", "args": arguments or []}],
                        },
                    },
                },
            }
        )
        await self.client.create(body)
        self.sizes[name] = [replicas]
        return name

    async def size(self, deployment: str, replicas: int) -> None:
        """As `kubectl scale` does, or another autoscaler."""
        body = {"spec": {"replicas": replicas}}
        await self.client.patch(
            Deployment.Scale,
            deployment,
            body,
            namespace=self.namespace,
            patch_type=PatchType.MERGE,
            field_manager="kubectl",
        )

    async def replicas(self, deployment: str) -> int:
        found = await self.client.get(Deployment, deployment, namespace=self.namespace)
        return found.spec.replicas

    async def pods(self) -> list[Pod]:
        return [pod async for pod in self.client.list(Pod, namespace=self.namespace)]

    async def staying(self, pool: str) -> int:
        pods = [pod for pod in await self.pods() if pod.metadata.labels["penstock/pool"] == pool]
        return sum(pod.metadata.deletionTimestamp is None for pod in pods)

    async def ready(self, name: str, *, is_ready: bool = True) -> None:
        await self.status(name, _running(is_ready=is_ready))

    async def status(self, name: str, status: dict[str, Any]) -> None:
        with contextlib.suppress(ApiError):
            await self.client.patch(
                Pod.Status, name, {"status": status}, namespace=self.namespace, patch_type=PatchType.MERGE
            )

    async def delete(self, name: str) -> None:
        """As a node's drain, a spot eviction or a person does: with the pod's own grace."""
        await self.client.delete(Pod, name, namespace=self.namespace)

    async def die(self, name: str) -> None:
        """Its container ends with an error; the kubelet starts it again, a little later each time."""
        pod = await self.client.get(Pod, name, namespace=self.namespace)
        if pod.metadata.deletionTimestamp is not None:
            await self.finish(name)
            return
        self._died[name] = self._died.get(name, 0) + 1
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        container = _container(is_ready=False, restarts=self._died[name])
        container |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
        await self.status(name, _running(is_ready=False) | {"containerStatuses": [container]})
        self._back_off.add(name)

    async def finish(self, name: str) -> None:
        """It has drained: its kubelet says so."""
        with contextlib.suppress(ApiError):
            await self.client.delete(Pod, name, namespace=self.namespace, grace_period=0)

    async def restrict(self, resource: str, verbs: list[str]) -> None:
        """Takes permissions away from the scaler."""
        role = await self.client.get(Role, "penstock-scaler", namespace=self.namespace)
        for rule in role.rules:
            if resource in rule.resources:
                rule.verbs = verbs
        await self.client.replace(role)

    async def run(self) -> None:
        while True:
            if not self.is_idle:
                # The API server may be gone: that is what some tests are about.
                with contextlib.suppress(Exception):
                    await self._tick()
            await asyncio.sleep(EVERY_S)

    async def _tick(self) -> None:
        pods = await self.pods()
        async for deployment in self.client.list(Deployment, namespace=self.namespace):
            sizes = self.sizes.setdefault(deployment.metadata.name, [])
            if sizes[-1:] != [deployment.spec.replicas]:
                sizes.append(deployment.spec.replicas)
            labels = deployment.spec.selector.matchLabels
            await self._replicate(deployment, [pod for pod in pods if labels.items() <= pod.metadata.labels.items()])
        for pod in pods:
            if pod.metadata.deletionTimestamp is not None and self.drains_at_once:
                await self.finish(pod.metadata.name)

            elif pod.metadata.deletionTimestamp is not None:
                continue
            elif self.crashes:
                await self.die(pod.metadata.name)
            elif pod.metadata.name in self._back_off:
                self._back_off.discard(pod.metadata.name)
                await self.status(pod.metadata.name, _running(is_ready=True, restarts=self._died[pod.metadata.name]))

    async def _replicate(self, deployment: Deployment, pods: list[Pod]) -> None:
        active = [pod for pod in pods if pod.metadata.deletionTimestamp is None and pod.status.phase != "Failed"]
        for _ in range(deployment.spec.replicas - len(active)):
            await self._make(deployment)
        for pod in sorted(active, key=_place)[: max(0, len(active) - deployment.spec.replicas)]:
            self.deleted.append(pod.metadata.name)
            await self.delete(pod.metadata.name)

    async def _make(self, deployment: Deployment) -> None:
        name = f"{deployment.metadata.name}-5d8f-{next(self._numbers)}"
        template = deployment.spec.template
        labels = {**template.metadata.labels, "pod-template-hash": "5d8f"}
        spec = {**template.spec.to_dict(), "nodeName": "node-1"}
        body = Pod.from_dict({"metadata": {"name": name, "namespace": self.namespace, "labels": labels}, "spec": spec})
        await self.client.create(body)
        await self.status(name, _running(is_ready=self.makes_ready))


def _place(pod: Pod) -> tuple[Any, ...]:
    conditions = {one.type: one.status for one in pod.status.conditions or []}
    return (
        ["Pending", "Unknown", "Running"].index(pod.status.phase),
        conditions.get("Ready") == "True",
        int((pod.metadata.annotations or {}).get(COST, "0")),
        -pod.metadata.creationTimestamp.timestamp(),
        pod.metadata.name,
    )


def _running(*, is_ready: bool, restarts: int = 0) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True" if is_ready else "False", "lastTransitionTime": _now()}
    container = _container(is_ready=is_ready, restarts=restarts)
    return {"phase": "Running", "conditions": [ready], "containerStatuses": [container]}


def _container(*, is_ready: bool, restarts: int) -> dict[str, Any]:
    state = {"running": {"startedAt": _now()}}
    of_image = {"image": "penstock", "imageID": ""}
    return {"name": "consumer", "ready": is_ready, "restartCount": restarts, "state": state, **of_image}


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.asynccontextmanager
async def cluster(kubeconfig: str, namespace: str, role: list[dict[str, Any]]) -> AsyncGenerator[Cluster]:
    """A namespace with the scaler's role in it, its controllers running. `kubeconfig`: an admin's."""
    client = AsyncClient(KubeConfig.from_file(kubeconfig).get(), namespace=namespace)
    running: asyncio.Task[None] | None = None
    try:
        await client.create(Namespace.from_dict({"metadata": {"name": namespace}}))
        for document in role:
            kind = {"Role": Role, "RoleBinding": RoleBinding}.get(document["kind"])
            if kind is not None:
                document["metadata"]["namespace"] = namespace
                for subject in document.get("subjects", []):
                    subject["namespace"] = namespace
                await client.create(kind.from_dict(document), namespace=namespace)
        made = Cluster(client, namespace)
        running = asyncio.create_task(made.run())
        yield made
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await client.close()
