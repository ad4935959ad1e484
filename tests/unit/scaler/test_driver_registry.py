"""Which driver a configuration means, and with what its consumers are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaler.drivers.gpus import GpuNeed
from scaler.drivers.registry import DRIVERS, Surroundings, container_program, make_driver
from schemas.config import load
from schemas.errors import ConfigError
from schemas.scaler_config import ScaledPoolSection

ENVIRONMENT = {"PENSTOCK__BROKER__REPLICAS": "3", "PENSTOCK__SCALER__DRIVER": "docker", "HOME": "/root"}


def around(tmp_path: Path) -> Surroundings:
    return Surroundings(data_dir=tmp_path, arguments=[], environment=ENVIRONMENT, broker_url="nats://nats:4222")


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_every_driver_can_be_asked_for_by_its_name(name: str, tmp_path: Path) -> None:
    driver = make_driver(load("", {}, {"scaler.driver": name}), {}, around(tmp_path))

    assert driver.name == name


def test_a_container_gets_the_scaler_s_broker_and_the_pool_s_own_settings(tmp_path: Path) -> None:
    cfg = load('[scaler.docker.environment]\nHF_HOME = "/models"\nX = "all"', {}, {})
    pool = ScaledPoolSection(
        arguments=["--engine.model", "m"], environment={"X": "mine"}, consumers_per_gpu=2, drain_s=60
    )

    program = container_program(cfg, pool, around(tmp_path))

    assert program.environment == {
        "PENSTOCK__BROKER__REPLICAS": "3",
        "PENSTOCK__BROKER__URL": "nats://nats:4222",
        "PENSTOCK__LOG__FORMAT": "json",
        "HF_HOME": "/models",
        "X": "mine",
    }
    assert program.arguments == ["--engine.gpu_memory_utilization", "0.45", "--engine.model", "m"]
    assert (program.need, program.drain_s) == (GpuNeed(gpus=1, consumers_per_gpu=2), 60)


def test_a_misspelled_setting_of_a_driver_is_named() -> None:
    with pytest.raises(ConfigError, match=r"kubeconfg.*did you mean `kubeconfig`.*"):
        load("", {}, {"scaler.kubernetes.kubeconfg": "x"})
    with pytest.raises(ConfigError, match=r"deployment must contain \{pool\}"):
        load("", {}, {"scaler.kubernetes.deployment": "one-for-all"})
