"""What Kubernetes says of Deployments and pods, as the driver understands it."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube.core.selector import build_selector
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod as KubePod

from scaler.drivers.kube_objects import pod_of, sized_of
from scaler.drivers.pods import COST_ANNOTATION


def owner(manager: str, second: int, *fields: str) -> dict[str, Any]:
    spec = {f"f:{field}": {} for field in fields}
    return {"manager": manager, "time": f"2026-01-01T00:00:{second:02}Z", "fieldsV1": {"f:spec": spec}}


def a_deployment(**spec: Any) -> Deployment:
    managed = [owner("helm", 9, "template"), owner("penstock-scaler", 1, "replicas"), owner("kubectl", 5, "replicas")]
    metadata = {"name": "d", "resourceVersion": "7", "managedFields": managed}
    return Deployment.from_dict({"metadata": metadata, "spec": {"selector": {}, "template": {}, **spec}})


def a_pod(container: dict[str, Any] | None = None, **status: Any) -> KubePod:
    metadata = {"name": "p", "annotations": {COST_ANNOTATION: "-3"}}
    spec = {"containers": [{"name": "consumer", **(container or {})}]}
    return KubePod.from_dict({"metadata": metadata, "spec": spec, "status": status})


def test_who_sized_it_last_is_who_wrote_the_size_last() -> None:
    assert sized_of("d", a_deployment(replicas=3)).changed_by == "kubectl"


def test_a_selector_s_two_ways_are_one() -> None:
    expressions = [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "b", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"penstock/pool": "p"}, "matchExpressions": expressions}

    found = sized_of("d", a_deployment(selector=selector)).selector

    assert build_selector(found) == "penstock/pool=p,a in (x,y),b notin (z),c,!d"


@pytest.mark.parametrize(
    ("container", "grace_s"),
    [
        ({}, 30.0),
        ({"args": ["consumer", "--consumer.grace_s", "55"]}, 55.0),
        ({"command": ["sh", "-c", "exec penstock consumer --consumer.grace_s=70 --x y"]}, 70.0),
        ({"env": [{"name": "PENSTOCK__CONSUMER__GRACE_S", "value": "40"}]}, 40.0),
        # Arguments come before the environment, as for the consumer itself.
        ({"env": [{"name": "PENSTOCK__CONSUMER__GRACE_S", "value": "40"}], "args": ["--consumer.grace_s", "50"]}, 50.0),
        ({"args": ["--consumer.grace_s", "$(GRACE)"]}, 30.0),
    ],
)
def test_a_consumer_s_grace_is_read_from_its_pod(container: dict[str, Any], grace_s: float) -> None:
    assert pod_of(a_pod(container)).grace_s == grace_s


def test_a_pod_without_any_status_yet_is_pending() -> None:
    pod = pod_of(a_pod())

    assert (pod.phase, pod.is_ready, pod.is_leaving, pod.trouble, pod.cost) == ("Pending", False, False, "", -3)


def test_a_pod_that_no_node_takes_says_why() -> None:
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes have a GPU"}

    assert pod_of(a_pod(conditions=[why])).trouble == "Unschedulable: 0/2 nodes have a GPU"


def test_between_a_death_and_the_pause_it_is_a_crash_loop_already() -> None:
    died = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    container = {"name": "consumer", "ready": False, "restartCount": 1, "image": "", "imageID": "", "state": died}

    pod = pod_of(a_pod(containerStatuses=[container | {"lastState": died}]))

    assert (pod.trouble, pod.last_exit, pod.restarts) == ("CrashLoopBackOff", "OOMKilled with exit code 137", 1)


def test_a_container_that_is_being_created_is_in_no_trouble() -> None:
    waits = {"waiting": {"reason": "ContainerCreating"}}
    container = {"name": "consumer", "ready": False, "restartCount": 0, "image": "", "imageID": "", "state": waits}

    assert pod_of(a_pod(containerStatuses=[container])).trouble == ""
