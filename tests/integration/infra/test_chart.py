"""The chart in a real API server: it installs, the scaler's role is enough, and an upgrade undoes nothing of his."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lightkube import AsyncClient, KubeConfig
from lightkube.resources.apps_v1 import Deployment

from infra.life import unix_ms
from scaler.drivers.kubernetes import KubernetesDriver
from scaler.drivers.port import DriverRefused
from schemas.driver_config import KubernetesSection
from tests.support.kube import KubeServer

CHART = Path(__file__).parents[3] / "infra" / "helm" / "penstock"
VALUES: dict[str, Any] = {"pools": {"default": {"model": "tiny"}}, "broker": {"url": "nats://nats:4222"}}


def test_an_upgrade_leaves_the_size_that_the_scaler_has_decided(kube: KubeServer) -> None:
    helm = pytest.importorskip("helm_python", reason="Helm is not here: uv pip install --group deploy")
    # The scaler's token of this namespace belongs to the service account that a release `penstock` makes.
    namespace = "t39"
    kubeconfig = kube.kubeconfig(namespace, "admin")
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as cluster:
        cluster.install(str(CHART), "penstock", VALUES, namespace=namespace, create_namespace=True)

        async def scale() -> None:
            section = KubernetesSection(kubeconfig=kube.kubeconfig(namespace))
            driver = KubernetesDriver(section, unix_ms=unix_ms, rng=Random(5))
            await driver.open(lambda _: None)
            # The default of a Deployment that says nothing.
            assert (await driver.current("default")).staying == 1
            await driver.apply("default", 4)
            with pytest.raises(DriverRefused, match="forbids"):
                await driver.apply("other", 4)
            await driver.close()

        async def sizes() -> dict[str, int]:
            client = AsyncClient(KubeConfig.from_file(kubeconfig).get(), namespace=namespace)
            found = {one.metadata.name: one.spec.replicas async for one in client.list(Deployment)}
            await client.close()
            return found

        asyncio.run(scale())
        cluster.upgrade(str(CHART), "penstock", VALUES | {"dispatcher": {"replicas": 3}}, namespace=namespace)

        assert asyncio.run(sizes()) == {
            "penstock-consumer-default": 4,
            "penstock-dispatcher": 3,
            "penstock-gateway": 2,
            "penstock-scaler": 2,
        }
        cluster.uninstall("penstock")
        assert asyncio.run(sizes()) == {}
