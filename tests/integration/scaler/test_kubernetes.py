"""The Kubernetes driver against an API server: it converges whatever happens to either, and may do nothing else.

All of it against a real one, where there is one; and what needs no roles against a stand-in, everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.resources.apps_v1 import Deployment

from infra import topology
from infra.broker import Broker, connect
from infra.leader import Leader
from infra.life import unix_ms
from scaler.drivers.kube_answers import Gone
from scaler.drivers.kube_api import KubeApi
from scaler.drivers.kubernetes import KubernetesDriver
from scaler.drivers.port import Driver, DriverRefused, DriverUnavailable, Fleet
from schemas import subjects
from schemas.config import BrokerSection
from schemas.driver_config import KubernetesSection
from tests.support.kube import NAMESPACES, KubeServer
from tests.support.kube_cluster import Cluster, cluster
from tests.support.kube_stand_in import KubeStandIn

ROLE = Path(__file__).parents[3] / "infra" / "kubernetes" / "scaler-role.yaml"
POOL = "default"
DEPLOYMENT = "penstock-consumer-default"
# How long the API server stays dead. Once by hand: 60.
DOWN_S = float(os.environ.get("PENSTOCK_TEST_API_DOWN_S", "2"))

Api = KubeServer | KubeStandIn

# The rest are other files'.
_unused = iter(NAMESPACES[:35])
_numbers = itertools.count()


@pytest.fixture(params=["real", "stand-in"])
def api(request: pytest.FixtureRequest) -> Api:
    return request.getfixturevalue("kube" if request.param == "real" else "kube_stand_in")


class World:
    """A namespace with one pool, and what is needed to drive it."""

    def __init__(self, server: Api, cluster: Cluster, stack: contextlib.AsyncExitStack) -> None:
        self.server = server
        self.cluster = cluster
        self._stack = stack
        self.changes: asyncio.Queue[str] = asyncio.Queue()

    def section(self, **settings: Any) -> KubernetesSection:
        found = KubernetesSection(
            kubeconfig=self.server.kubeconfig(self.cluster.namespace), request_timeout_s=5.0, backoff_s_max=0.5
        )
        return msgspec.structs.replace(found, **settings)

    async def driver(self, **settings: Any) -> KubernetesDriver:
        made = KubernetesDriver(self.section(**settings), unix_ms=unix_ms, rng=Random(7))
        await made.open(self.changes.put_nowait)
        self._stack.push_async_callback(made.close)
        return made

    async def admin(self, token: str = "admin") -> AsyncClient:
        config = KubeConfig.from_file(self.server.kubeconfig(self.cluster.namespace, token if token == "admin" else ""))
        client = AsyncClient(config.get(), namespace=self.cluster.namespace)
        self._stack.push_async_callback(client.close)
        return client


@contextlib.asynccontextmanager
async def world(server: Api, replicas: int = 0, **deployed: Any) -> AsyncGenerator[World]:
    namespace = next(_unused) if server.is_real else f"s{next(_numbers)}"
    role = list(yaml.safe_load_all(ROLE.read_text())) if server.is_real else []
    async with (
        cluster(server.kubeconfig(namespace, "admin"), namespace, role) as made,
        contextlib.AsyncExitStack() as stack,
    ):
        await made.deploy(POOL, replicas, **deployed)
        yield World(server, made, stack)


def in_world(server: Api, scenario: Callable[[World], Awaitable[None]], replicas: int = 0, **deployed: Any) -> None:
    async def run() -> None:
        async with world(server, replicas, **deployed) as made:
            await scenario(made)

    asyncio.run(run())


async def settled(driver: Driver, is_settled: Callable[[Fleet], bool], limit_s: float = 15.0) -> Fleet:
    """The fleet, when it has become so."""
    fleet: Fleet | None = None
    try:
        async with asyncio.timeout(limit_s):
            while True:
                with contextlib.suppress(DriverUnavailable):
                    fleet = await driver.current(POOL)
                    if is_settled(fleet):
                        return fleet
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it stayed at {fleet}") from None


def running(count: int) -> Callable[[Fleet], bool]:
    return lambda fleet: [one.phase for one in fleet.replicas] == ["running"] * count


async def applied(driver: Driver, replicas: int, limit_s: float = 30.0, **how: Any) -> None:
    """As a scaler does it: again at each tick, until it is accepted."""
    async with asyncio.timeout(limit_s):
        while True:
            try:
                await driver.apply(POOL, replicas, **how)
                return
            except DriverUnavailable:
                await asyncio.sleep(0.1)


def names(fleet: Fleet) -> set[str]:
    return {one.consumer for one in fleet.replicas}


# --- size


def test_up_and_down_and_to_zero(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        for size in (3, 5, 1, 0):
            await driver.apply(POOL, size)
            await settled(driver, running(size))

        assert world.cluster.sizes[DEPLOYMENT] == [0, 3, 5, 1, 0]

    in_world(api, scenario)


def test_what_is_asked_is_seen_at_once_before_any_controller_acts(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 3)
        await settled(driver, running(3))
        world.cluster.is_idle = True

        await driver.apply(POOL, 1)
        fewer = await driver.current(POOL)
        await driver.apply(POOL, 4)
        more = await driver.current(POOL)

        assert fewer.staying == 1
        assert sorted(one.phase for one in fewer.replicas) == ["draining", "draining", "running"]
        assert more.staying == 4
        assert [one.phase for one in more.replicas if not one.consumer] == ["starting"]

    in_world(api, scenario)


def test_asking_twice_is_asking_once(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        await settled(driver, running(2))
        before = (await world.cluster.client.get(Deployment, DEPLOYMENT)).metadata.resourceVersion

        await driver.apply(POOL, 2)

        assert (await world.cluster.client.get(Deployment, DEPLOYMENT)).metadata.resourceVersion == before

    in_world(api, scenario)


def test_only_the_size_is_written(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        before = await world.cluster.client.get(Deployment, DEPLOYMENT)
        await driver.apply(POOL, 2)
        after = await world.cluster.client.get(Deployment, DEPLOYMENT)

        before.spec.replicas = after.spec.replicas
        assert after.spec.to_dict() == before.spec.to_dict()
        assert after.metadata.annotations == before.metadata.annotations

    in_world(api, scenario)


# --- who goes


def test_the_victims_are_the_pods_that_go_in_their_order(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 5)
        pods = sorted(names(await settled(driver, running(5))))
        # Neither the oldest nor the youngest.
        least_busy = [pods[2], pods[1], pods[3], pods[0], pods[4]]

        await driver.apply(POOL, 3, victims=least_busy)
        left = await settled(driver, running(3))

        assert names(left) == {pods[3], pods[0], pods[4]}
        assert sorted(world.cluster.deleted) == sorted([pods[1], pods[2]])

    in_world(api, scenario)


def test_a_victim_drains_and_stays_visible_until_it_is_gone(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        victim, other = sorted(names(await settled(driver, running(2))))
        world.cluster.drains_at_once = False

        await driver.apply(POOL, 1, victims=[victim])
        # The API server has sent it SIGTERM, as far as an API server can: it is being deleted, with all its grace.
        fleet = await settled(driver, lambda _: victim in world.cluster.deleted)

        assert {one.consumer: one.phase for one in fleet.replicas} == {victim: "draining", other: "running"}
        found = {pod.metadata.name: pod for pod in await world.cluster.pods()}[victim]
        assert found.metadata.deletionGracePeriodSeconds == 60
        await world.cluster.finish(victim)
        assert names(await settled(driver, running(1))) == {other}

    in_world(api, scenario)


def test_those_that_start_go_before_any_victim(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        old = names(await settled(driver, running(2)))
        world.cluster.makes_ready = False
        await driver.apply(POOL, 4)
        await settled(driver, lambda fleet: len(names(fleet)) == 4 and "" not in names(fleet))

        await driver.apply(POOL, 2, victims=sorted(old))
        left = await settled(driver, running(2))

        assert names(left) == old

    in_world(api, scenario)


def test_a_victim_that_was_spared_is_no_victim_next_time(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 3)
        idle, busy, other = sorted(names(await settled(driver, running(3))))
        world.cluster.is_idle = True
        await driver.apply(POOL, 2, victims=[idle])
        # Taken back before anybody acted; the idle one is the busiest now.
        await driver.apply(POOL, 3)
        await driver.apply(POOL, 2, victims=[other])
        world.cluster.is_idle = False

        left = await settled(driver, running(2))

        assert names(left) == {idle, busy}

    in_world(api, scenario)


def test_a_pod_that_is_drained_by_others_counts_as_draining_and_is_replaced(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        evicted, _ = sorted(names(await settled(driver, running(2))))
        world.cluster.drains_at_once = False

        await world.cluster.delete(evicted)
        fleet = await settled(driver, lambda fleet: sum(one.phase == "running" for one in fleet.replicas) == 2)

        assert {one.consumer for one in fleet.replicas if one.phase == "draining"} == {evicted}
        assert fleet.staying == 2

    in_world(api, scenario)


def test_a_node_that_announces_its_end_makes_its_pods_draining(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 1)
        (pod,) = names(await settled(driver, running(1)))

        told = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
        await world.cluster.status(pod, {"conditions": [told]})

        fleet = await settled(driver, lambda fleet: fleet.replicas[0].phase == "draining")
        assert fleet.replicas[0].consumer == pod

    in_world(api, scenario)


# --- what fails


@pytest.mark.parametrize("reason", ["CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError"])
def test_a_pod_that_cannot_run_is_failing_and_says_why(api: Api, reason: str) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        world.cluster.makes_ready = False
        await driver.apply(POOL, 1)
        (pod,) = names(await settled(driver, lambda fleet: names(fleet) - {""} != set()))

        died = {"terminated": {"exitCode": 2, "reason": "Error"}}
        container = {
            "name": "consumer",
            "ready": False,
            "restartCount": 4,
            "image": "penstock",
            "imageID": "",
            "state": {"waiting": {"reason": reason}},
            "lastState": died,
        }
        await world.cluster.status(pod, {"containerStatuses": [container]})
        fleet = await settled(driver, lambda fleet: fleet.replicas[0].phase == "failing")

        assert fleet.replicas[0].restarts == 4
        assert fleet.replicas[0].reason == f"{reason}, Error with exit code 2"
        assert fleet.staying == 1

    in_world(api, scenario)


def test_a_quota_that_forbids_pods_is_said(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        world.cluster.is_idle = True
        await driver.apply(POOL, 2)

        full = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
        body = {"status": {"conditions": [full]}}
        await world.cluster.client.patch(Deployment.Status, DEPLOYMENT, body)
        fleet = await driver.current(POOL)

        assert [(one.phase, one.reason) for one in fleet.replicas] == [("failing", "exceeded quota: gpus")] * 2

    in_world(api, scenario)


def test_an_unknown_pool_is_refused_with_the_remedy(kube: KubeServer) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        # The role names its Deployments, so that one that is not there is forbidden rather than not found.
        with pytest.raises(DriverRefused, match="docs/kubernetes.md"):
            await driver.apply("other", 1)
        with pytest.raises(DriverRefused, match=r"'Qwen_7B' makes no Kubernetes name.*scaler\.kubernetes\.deployments"):
            await driver.current("Qwen_7B")

    in_world(kube, scenario)


def test_a_consumer_that_would_be_killed_at_work_is_warned_of(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 1)
        await settled(driver, running(1))

    with caplog.at_level(logging.WARNING, "scaler"):
        in_world(api, scenario, arguments=["consumer", "--consumer.grace_s", "55"])

    warned = [record for record in caplog.records if record.message == "driver.kills_at_work"]
    assert [(one.needed_s, one.terminationGracePeriodSeconds) for one in warned] == [(65, 60)]


# --- others who write


def test_a_write_that_came_between_is_looked_at_and_not_lost(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()

        async def annotate_for_ever() -> None:
            for number in itertools.count():
                body = {"metadata": {"annotations": {"somebody": str(number)}}}
                await world.cluster.client.patch(Deployment, DEPLOYMENT, body)
                await asyncio.sleep(0.01)

        annotating = asyncio.create_task(annotate_for_ever())
        try:
            for size in [2, 1, 3, 0, 4]:
                await applied(driver, size)
                assert await world.cluster.replicas(DEPLOYMENT) == size
        finally:
            annotating.cancel()
            await asyncio.gather(annotating, return_exceptions=True)

        found = await world.cluster.client.get(Deployment, DEPLOYMENT)
        assert int(found.metadata.annotations["somebody"]) > 0

    in_world(api, scenario)


def test_a_leader_of_yesterday_writes_over_nothing(api: Api) -> None:
    class Delayed(KubeApi):
        """Between its look and its write, another scaler leads and writes."""

        between: Callable[[], Awaitable[None]] | None = None

        async def set_replicas(self, deployment: str, replicas: int, version: str) -> None:
            between, self.between = self.between, None
            if between is not None:
                await between()
            await super().set_replicas(deployment, replicas, version)

    async def scenario(world: World) -> None:
        leader = await world.driver()
        delayed = Delayed.made(world.section())
        late = KubernetesDriver(world.section(), unix_ms=unix_ms, rng=Random(1), kube=delayed)
        await late.open(lambda _: None)
        await late.apply(POOL, 1)
        delayed.between = lambda: leader.apply(POOL, 5)

        with pytest.raises(DriverUnavailable, match="from 1 to 5 by somebody else"):
            await late.apply(POOL, 2)
        await late.close()

        assert await world.cluster.replicas(DEPLOYMENT) == 5

    in_world(api, scenario)


def test_a_person_s_change_is_put_right_and_said(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        await world.cluster.size(DEPLOYMENT, 6)

        await driver.apply(POOL, 2)

        assert await world.cluster.replicas(DEPLOYMENT) == 2

    with caplog.at_level(logging.WARNING, "scaler"):
        in_world(api, scenario)

    drifted = [record for record in caplog.records if record.message == "driver.drifted"]
    assert [(one.deployment, one.replicas) for one in drifted] == [(DEPLOYMENT, 6)]


def test_another_autoscaler_is_not_fought_without_end(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver(drifts_max=3, drift_window_s=60.0)
        await driver.apply(POOL, 2)
        for _ in range(2):
            await world.cluster.size(DEPLOYMENT, 6)
            await driver.apply(POOL, 2)
        for _ in range(8):
            await world.cluster.size(DEPLOYMENT, 6)
            with pytest.raises(DriverRefused, match="take the other autoscaler away"):
                await driver.apply(POOL, 2)

        assert await world.cluster.replicas(DEPLOYMENT) == 6

    in_world(api, scenario)


# --- least privilege


def test_the_role_allows_what_the_driver_does_and_nothing_else(kube: KubeServer) -> None:
    async def scenario(world: World) -> None:
        other = Deployment.from_dict((await world.cluster.client.get(Deployment, DEPLOYMENT)).to_dict())
        other.metadata.name, other.metadata.resourceVersion = "somebody-elses", None
        await world.cluster.client.create(other)
        driver = await world.driver()
        await driver.apply(POOL, 2)
        pods = sorted(names(await settled(driver, running(2))))
        await driver.apply(POOL, 1, victims=pods)

        here = f"/api/v1/namespaces/{world.cluster.namespace}"
        apps = f"/apis/apps/v1/namespaces/{world.cluster.namespace}"
        deployment = f"{apps}/deployments/{DEPLOYMENT}"
        merge = {"Content-Type": "application/merge-patch+json"}
        forbidden = [
            ("POST", f"{apps}/deployments"),
            ("GET", f"{apps}/deployments"),
            ("PATCH", deployment),
            ("PUT", deployment),
            ("DELETE", deployment),
            ("GET", f"{deployment}/scale"),
            ("PUT", f"{deployment}/scale"),
            ("PATCH", f"{deployment}/status"),
            ("GET", f"{apps}/deployments/somebody-elses"),
            ("PATCH", f"{apps}/deployments/somebody-elses/scale"),
            ("GET", f"{apps}/replicasets"),
            ("GET", f"{apps}/statefulsets"),
            ("GET", f"{here}/pods/{pods[0]}"),
            ("POST", f"{here}/pods"),
            ("PUT", f"{here}/pods/{pods[0]}"),
            ("DELETE", f"{here}/pods/{pods[0]}"),
            ("DELETE", f"{here}/pods"),
            ("PATCH", f"{here}/pods/{pods[0]}/status"),
            ("POST", f"{here}/pods/{pods[0]}/eviction"),
            ("POST", f"{here}/pods/{pods[0]}/exec"),
            ("GET", f"{here}/pods/{pods[0]}/log"),
            ("GET", f"{here}/secrets"),
            ("GET", f"{here}/configmaps"),
            ("GET", f"{here}/events"),
            ("GET", f"{here}/serviceaccounts"),
            ("POST", f"{here}/serviceaccounts/default/token"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/namespaces/default/pods"),
            ("GET", "/apis/apps/v1/namespaces/default/deployments"),
            ("PATCH", f"/apis/apps/v1/namespaces/default/deployments/{DEPLOYMENT}/scale"),
            ("GET", "/api/v1/nodes"),
            ("GET", "/api/v1/namespaces"),
            ("GET", f"/apis/coordination.k8s.io/v1/namespaces/{world.cluster.namespace}/leases"),
            ("GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.cluster.namespace}/roles"),
            ("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.cluster.namespace}/rolebindings"),
        ]
        token = {"Authorization": f"Bearer scaler-{world.cluster.namespace}"}
        async with httpx2.AsyncClient(base_url=world.server.url, verify=False, headers=token) as client:
            answers = {
                (verb, path): (await client.request(verb, path, headers=merge, content=b"{}")).status_code
                for verb, path in forbidden
            }

        assert {what: code for what, code in answers.items() if code != 403} == {}

    in_world(kube, scenario)


def test_a_missing_permission_names_the_verb_and_the_resource(kube: KubeServer) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        pods = sorted(names(await settled(driver, running(2))))
        await world.cluster.restrict("pods", ["list", "watch"])

        async def refused() -> str:
            # An authorizer hears of a new role by and by.
            async with asyncio.timeout(10):
                while True:
                    try:
                        await driver.apply(POOL, 1, victims=pods)
                    except DriverRefused as error:
                        return error.message
                    await driver.apply(POOL, 2)

        message = await refused()

        assert f"forbids to patch pods {pods[0]} in namespace" in message
        assert "let the scaler's role patch pods, see docs/kubernetes.md" in message
        # Without the mark the wrong one would go: nothing is resized.
        assert await world.cluster.replicas(DEPLOYMENT) == 2

    in_world(kube, scenario)


def test_opening_without_permission_is_refused(kube: KubeServer) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(DriverRefused, match="list pods in namespace default"):
            await world.driver(namespace="default")
        with pytest.raises(DriverRefused, match=r"scaler\.kubernetes\.kubeconfig"):
            await world.driver(kubeconfig="nowhere.yaml")
        with pytest.raises(DriverRefused, match="does not know us"):
            await world.driver(kubeconfig=world.server.kubeconfig(world.cluster.namespace, "stolen"))

    in_world(kube, scenario)


# --- watching


async def heard(world: World, limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        assert await world.changes.get() == POOL


def hear_no_more(world: World) -> None:
    while not world.changes.empty():
        world.changes.get_nowait()


def test_a_change_is_heard_without_asking(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 1)
        (pod,) = names(await settled(driver, running(1)))
        hear_no_more(world)

        await world.cluster.delete(pod)
        await heard(world)

    in_world(api, scenario)


def test_a_watch_that_ends_begins_again(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver(watch_s=1.0)
        for size in (1, 2, 1, 2, 1):
            hear_no_more(world)
            # Each in another second, so in another watch.
            ended = asyncio.get_running_loop().time() + 0.7
            await driver.apply(POOL, size)
            await heard(world)
            await settled(driver, running(size))
            await asyncio.sleep(max(0.0, ended - asyncio.get_running_loop().time()))

    in_world(api, scenario)


def test_an_api_server_that_dies_is_outlived(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver()
        await driver.apply(POOL, 2)
        await settled(driver, running(2))
        until = asyncio.get_running_loop().time() + DOWN_S
        api.kill_api()
        try:
            # A scaler does not stop asking for what it wants.
            refusals = 0
            while refusals == 0 or asyncio.get_running_loop().time() < until:
                with pytest.raises(DriverUnavailable):
                    await driver.apply(POOL, 4)
                with pytest.raises(DriverUnavailable):
                    await driver.current(POOL)
                refusals += 1
                await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(api.start_api)
        hear_no_more(world)

        async with asyncio.timeout(30):
            while True:
                # It knows its roles again by and by.
                with contextlib.suppress(DriverUnavailable, DriverRefused):
                    await driver.apply(POOL, 4)
                    break
                await asyncio.sleep(0.1)
        await settled(driver, running(4))
        await heard(world)

        assert world.cluster.sizes[DEPLOYMENT] == [0, 2, 4]

    in_world(api, scenario)


def test_an_api_server_that_hangs_is_away_in_time(api: Api) -> None:
    async def scenario(world: World) -> None:
        driver = await world.driver(request_timeout_s=0.5)
        api.hang()
        try:
            with pytest.raises(DriverUnavailable, match="did not answer in time"):
                await driver.apply(POOL, 1)
        finally:
            api.go_on()

        await applied(driver, 1)
        await settled(driver, running(1))

    in_world(api, scenario)


def test_a_version_the_api_server_has_forgotten_asks_for_a_new_list(api: Api) -> None:
    async def scenario(world: World) -> None:
        client = KubeApi.made(world.section())
        try:
            with pytest.raises(Gone):
                async for _ in client.changes("1"):
                    pass
        finally:
            await client.close()

    in_world(api, scenario)


# --- scalers that follow each other


def test_when_the_leader_is_lost_the_next_one_goes_on_and_nothing_swings(api: Api, nats_url: str) -> None:
    async def scenario(world: World) -> None:
        first, second = await candidate(world, nats_url, 3), await candidate(world, nats_url, 5)
        try:
            await settled(first.driver, running(3))
            # As kill -9 does it, between two ticks or in the middle of one.
            await first.vanish()
            await settled(second.driver, running(5))
        finally:
            await second.vanish()

        assert world.cluster.sizes[DEPLOYMENT] == [0, 3, 5]

    in_world(api, scenario)


class Candidate(NamedTuple):
    """A scaler as far as leading goes: while it leads it wants one size, at every tick."""

    driver: KubernetesDriver
    broker: Broker
    task: asyncio.Task[None]

    async def vanish(self) -> None:
        await self.broker.nc.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def candidate(world: World, url: str, wants: int) -> Candidate:
    driver = await world.driver()
    pool = world.cluster.namespace
    broker = await connect(BrokerSection(), name=f"wants {wants}", url=url)
    await topology.provision_backlog(broker, BrokerSection(), pool)
    subject = subjects.dispatch_leader(pool)
    leader = Leader(broker, stream=subjects.DISPATCH_STREAM, subject=subject, name=f"wants-{wants}", lease_s=1.0)

    async def lead() -> None:
        while True:
            with contextlib.suppress(DriverUnavailable):
                await driver.apply(POOL, wants)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(leader.run(lead))
    if wants == 3:
        await settled(driver, lambda fleet: fleet.staying == wants)
    return Candidate(driver, broker, task)


def test_a_new_driver_finds_what_another_has_started(api: Api) -> None:
    async def scenario(world: World) -> None:
        first = await world.driver()
        await first.apply(POOL, 3)
        before = names(await settled(first, running(3)))
        world.cluster.drains_at_once = False
        await first.apply(POOL, 2, victims=sorted(before))
        await first.close()

        second = await world.driver()
        fleet = await settled(second, lambda fleet: len(world.cluster.deleted) == 1)

        assert names(fleet) == before
        assert {one.consumer for one in fleet.replicas if one.phase == "draining"} == {min(before)}
        assert fleet.staying == 2

    in_world(api, scenario)
