"""The few questions and orders we have for a Kubernetes API server; lightkube, its types and its errors end here."""

# lightkube leaves parts of its own types open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, cast

import httpx2
import msgspec
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError, LoadResourceError
from lightkube.operators import Operator, exists
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod as KubePod
from lightkube.types import PatchType

from scaler.drivers.kube_answers import FIELD_MANAGER, Conflict, Gone, Missing, Sized
from scaler.drivers.kube_objects import labels_of, pod_of, sized_of
from scaler.drivers.pods import COST_ANNOTATION, Pod
from scaler.drivers.port import DriverRefused, DriverUnavailable
from schemas.driver_config import KubernetesSection
from schemas.errors import PenstockError

# Limits in one exchange: connect, write, read.
_STEPS = 3

# What lightkube accepts as one.
Selector = dict[str, str | Operator[Any] | Iterable[str] | None]


class KubeApi:
    """One client, in one namespace."""

    def __init__(self, client: AsyncClient, cfg: KubernetesSection) -> None:
        self._client = client
        self._cfg = cfg
        self.namespace: str = client.namespace

    @classmethod
    def made(cls, cfg: KubernetesSection) -> KubeApi:
        """Raises DriverRefused: there is no cluster in the settings, or none that makes sense."""
        try:
            config = KubeConfig.from_file(cfg.kubeconfig) if cfg.kubeconfig else KubeConfig.from_env()
            client = AsyncClient(
                config.get(cfg.context or None),
                namespace=cfg.namespace or None,
                timeout=httpx2.Timeout(cfg.request_timeout_s),
                field_manager=FIELD_MANAGER,
            )
        except (ConfigError, LoadResourceError, OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            where = cfg.kubeconfig or "neither a service account nor a kubeconfig"
            raise DriverRefused(
                f"no Kubernetes cluster to talk to ({where}: {error}): set scaler.kubernetes.kubeconfig",
                param="scaler.kubernetes.kubeconfig",
            ) from error
        return cls(client, cfg)

    async def close(self) -> None:
        await self._client.close()

    async def deployment(self, name: str) -> Sized:
        async with self._asking("get", "deployments", name):
            found = await self._client.get(Deployment, name, namespace=self.namespace)
            return sized_of(name, found)

    async def pods(self, selector: dict[str, Any]) -> list[Pod]:
        async with self._asking("list", "pods"):
            return [pod_of(pod) async for pod in self._client.list(KubePod, namespace=self.namespace, labels=selector)]

    async def set_cost(self, pod: str, cost: int | None) -> None:
        """None takes it away. Raises Gone."""
        value = None if cost is None else str(cost)
        async with self._asking("patch", "pods", pod):
            body = {"metadata": {"annotations": {COST_ANNOTATION: value}}}
            await self._client.patch(KubePod, pod, body, namespace=self.namespace, patch_type=PatchType.MERGE)

    async def set_replicas(self, deployment: str, replicas: int, version: str) -> None:
        """Raises Conflict: it is not `version` any more."""
        async with self._asking("patch", "deployments/scale", deployment):
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            await self._client.patch(
                Deployment.Scale, deployment, body, namespace=self.namespace, patch_type=PatchType.MERGE
            )

    async def labelled(self) -> tuple[dict[str, tuple[str, Pod]], str]:
        """All consumers' pods by name, with their pools; and the version after which to watch."""
        labels: Selector = {self._cfg.label: exists()}
        async with self._asking("list", "pods"):
            listed = self._client.list(KubePod, namespace=self.namespace, labels=labels)
            found = {pod.name: (pool, pod) for pool, pod in [self._with_pool(one) async for one in listed]}
            return found, listed.resourceVersion

    async def changes(self, version: str) -> AsyncGenerator[tuple[str, Pod, bool]]:
        """Pods that changed after `version`, with their pools, and whether they are there. Ends after `watch_s`.

        Raises:
            Gone: `version` is forgotten, so list again.
        """
        labels: Selector = {self._cfg.label: exists()}
        watching = self._client.watch(
            KubePod,
            namespace=self.namespace,
            labels=labels,
            server_timeout=int(self._cfg.watch_s),
            resource_version=version,
        )
        # lightkube waits for ever on a connection that died without a word.
        with kube_errors("watch", "pods", namespace=self.namespace), contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(self._cfg.watch_s),
                contextlib.aclosing(cast("AsyncGenerator[tuple[str, KubePod]]", watching)) as events,
            ):
                async for kind, pod in events:
                    pool, seen = self._with_pool(pod)
                    yield pool, seen, kind != "DELETED"

    def _with_pool(self, pod: KubePod) -> tuple[str, Pod]:
        return labels_of(pod).get(self._cfg.label, ""), pod_of(pod)

    @contextlib.asynccontextmanager
    async def _asking(self, verb: str, resource: str, name: str = "") -> AsyncGenerator[None]:
        with kube_errors(verb, resource, name=name, namespace=self.namespace):
            # The client's own limit, for each step of an exchange, comes first: cancelled in the middle of a handshake
            # it would leave the socket behind.
            async with asyncio.timeout(_STEPS * self._cfg.request_timeout_s):
                yield


@contextlib.contextmanager
def kube_errors(verb: str, resource: str, *, name: str = "", namespace: str = "") -> Generator[None]:
    what = f"{verb} {resource}{f' {name}' if name else ''} in namespace {namespace}"
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.status if isinstance(error, ApiError) else None
        code = (status.code if status else None) or (error.response.status_code if error.response else 0)
        raise _for_code(code, str(error), what, verb=verb, resource=resource) from error
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise DriverUnavailable(f"the Kubernetes API did not answer in time: {what}") from error
    except (httpx2.HTTPError, OSError) as error:
        raise DriverUnavailable(f"the Kubernetes API is away ({error!r}): {what}") from error
    except ConfigError as error:
        raise DriverRefused(f"Kubernetes credentials: {error}") from error
    except (msgspec.MsgspecError, AttributeError, TypeError, UnicodeError) as error:
        # A proxy's error page, half a body.
        raise DriverUnavailable(f"the Kubernetes API's answer makes no sense ({error!r}): {what}") from error


def _for_code(code: int, message: str, what: str, *, verb: str, resource: str) -> PenstockError:
    match code:
        case 401:
            answer = DriverRefused(f"Kubernetes does not know us: {what} ({message})")
        case 403:
            remedy = f"let the scaler's role {verb} {resource}, see docs/kubernetes.md"
            answer = DriverRefused(f"Kubernetes forbids to {what}: {remedy} ({message})")
        case 404 if resource.startswith("deployments"):
            remedy = "install the chart, or name the pool's Deployment in scaler.kubernetes.deployments"
            answer = Missing(f"there is nothing to {what}: {remedy}")
        case 404 | 410:
            answer = Gone(f"{what}: {message}")
        case 409:
            answer = Conflict(f"{what}: {message}")
        case 400 | 405 | 422:
            answer = DriverRefused(f"Kubernetes refuses to {what}: {message}")
        case _:
            answer = DriverUnavailable(f"the Kubernetes API answers {code}: {what} ({message})")
    return answer
