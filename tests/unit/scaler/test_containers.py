"""Containers as replicas, and what a new one is made from."""

from __future__ import annotations

from typing import Any

import pytest

from scaler.drivers.containers import (
    Container,
    ContainerProgram,
    config_of,
    container_of,
    fleet_of,
    in_order_of_leaving,
    name_while_draining,
    settings_to_pass_on,
)
from scaler.drivers.gpus import GpuNeed
from schemas.config import load
from schemas.driver_config import DockerSection


def a_container(consumer: str, **how: Any) -> Container:
    usual = {"id": consumer, "own_name": f"penstock-{consumer}", "pool": "p", "status": "running"}
    return Container(consumer=consumer, **{**usual, **how})


def inspected(made: dict[str, Any], name: str, **state: Any) -> dict[str, Any]:
    """What an engine says of a container made like this."""
    config = {"Labels": made["Labels"]}
    return {"Id": "1", "Name": f"/{name}", "RestartCount": 2, "Config": config, "State": {"Status": "running", **state}}


def test_who_does_not_work_goes_first_then_the_victims_in_their_order() -> None:
    staying = [
        a_container("old", asked_unix_ms=1),
        a_container("young", asked_unix_ms=9),
        a_container("second", asked_unix_ms=3),
        a_container("first", asked_unix_ms=2),
        a_container("starting", health="starting"),
        a_container("failing", status="restarting"),
    ]

    leaving = in_order_of_leaving(staying, ["gone", "first", "starting", "second"])

    assert [one.consumer for one in leaving] == ["failing", "starting", "first", "second", "young", "old"]


@pytest.mark.parametrize(
    ("how", "phase"),
    [
        ({}, "running"),
        ({"health": "healthy"}, "running"),
        ({"health": "starting"}, "starting"),
        ({"health": "unhealthy"}, "starting"),
        ({"status": "restarting", "last_exit": 2}, "failing"),
        ({"status": "paused"}, "failing"),
        ({"drains_until_unix_s": 5}, "draining"),
    ],
)
def test_an_engine_s_words_as_phases(how: dict[str, Any], phase: str) -> None:
    (replica,) = fleet_of("p", [a_container("a", **how)], 0, 0).replicas

    assert replica.phase == phase
    assert bool(replica.reason) == (phase == "failing")


@pytest.mark.parametrize("status", ["created", "exited", "dead", "removing"])
def test_what_never_started_or_was_stopped_by_a_person_is_no_replica(status: str) -> None:
    assert fleet_of("p", [a_container("a", status=status)], 0, 0).replicas == []


def test_a_container_remembers_what_its_scaler_knew() -> None:
    program = ContainerProgram(need=GpuNeed(gpus=2))
    made = config_of(DockerSection(), "p", program, name="p-1", gpus=["0", "3"], unix_ms=77)
    one = container_of(inspected(made, "penstock-p-1", Health={"Status": "healthy"}))
    told = container_of(inspected(made, name_while_draining(one, 1234)))

    assert (one.pool, one.consumer, one.asked_unix_ms, one.restarts) == ("p", "p-1", 77, 2)
    assert (list(one.gpus), one.share, one.health) == (["0", "3"], 1.0, "healthy")
    assert (one.drains_until_unix_s, told.drains_until_unix_s, told.own_name) == (0, 1234, one.own_name)


def test_a_consumer_gets_its_gpus_its_name_and_time_to_drain() -> None:
    program = ContainerProgram(arguments=["--engine.model", "m"], environment={"A": "1"}, drain_s=90)
    section = DockerSection(network="n", volumes=["/m:/m"], shm_bytes=5)

    made = config_of(section, "p", program, name="p-1", gpus=["3"], unix_ms=0)

    assert made["Cmd"] == ["consumer", "--engine.model", "m"]
    assert made["HostConfig"]["DeviceRequests"] == [{"DeviceIDs": ["3"], "Capabilities": [["gpu"]]}]
    assert (made["HostConfig"]["NetworkMode"], made["HostConfig"]["ShmSize"]) == ("n", 5)
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    environment = dict(one.split("=", 1) for one in made["Env"])
    cfg = load("", environment, {})
    assert (cfg.consumer.name, cfg.consumer.pool, cfg.consumer.grace_s) == ("p-1", "p", 90)
    assert environment["A"] == "1"


def test_consumers_inherit_the_broker_and_not_who_the_scaler_is() -> None:
    own = {
        "PENSTOCK__BROKER__URL": "nats://n",
        "PENSTOCK__SCALER__DRIVER": "docker",
        "PENSTOCK__CONSUMER__NAME": "me",
        "PENSTOCK__DATA_DIR": "/x",
        "PATH": "/bin",
    }

    assert settings_to_pass_on(own) == {"PENSTOCK__BROKER__URL": "nats://n"}
