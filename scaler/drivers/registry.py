"""Which driver a configuration means. The heavier ones are imported when they are asked for."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random

import msgspec

from infra.gpus import gpus_here
from infra.life import unix_ms
from scaler.drivers.containers import ContainerProgram, settings_to_pass_on
from scaler.drivers.docker import DockerDriver
from scaler.drivers.dry_run import DryRun
from scaler.drivers.gpus import GpuNeed
from scaler.drivers.kubernetes import KubernetesDriver
from scaler.drivers.port import Driver
from scaler.drivers.process import Processes, ProcessProgram
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.scaler_config import ScaledPoolSection

# Of a GPU's memory, what all consumers on it take together: vLLM's own default for one.
_MEMORY_SHARE = 0.9


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may need of the process it is made in."""

    data_dir: Path
    # Of the scaler itself, for programs that it starts.
    arguments: Sequence[str]
    environment: Mapping[str, str]
    broker_url: str


def _process(cfg: Config, pools: Mapping[str, ScaledPoolSection], around: Surroundings) -> Driver:
    def program_of(pool: str) -> ProcessProgram:
        return consumer_program(cfg, pool, pools.get(pool, ScaledPoolSection()), around)

    gpus = cfg.scaler.gpu_ids or gpus_here(around.environment)
    folder = around.data_dir / "scaler"
    return Processes(folder, program_of, gpus=gpus, unix_ms=unix_ms, new_id=lambda: secrets.token_hex(4))


def _dry_run(_cfg: Config, _pools: Mapping[str, ScaledPoolSection], around: Surroundings) -> Driver:
    return DryRun(around.data_dir / "scaler", unix_ms=unix_ms, new_id=lambda: secrets.token_hex(4))


def _kubernetes(cfg: Config, _pools: Mapping[str, ScaledPoolSection], _around: Surroundings) -> Driver:
    return KubernetesDriver(cfg.scaler.kubernetes, unix_ms=unix_ms, rng=Random())  # noqa: S311 - spreads pauses


def _docker(cfg: Config, pools: Mapping[str, ScaledPoolSection], around: Surroundings) -> Driver:
    def program_of(pool: str) -> ContainerProgram:
        return container_program(cfg, pools.get(pool, ScaledPoolSection()), around)

    return DockerDriver(
        cfg.scaler.docker,
        program_of,
        gpus=cfg.scaler.gpu_ids,
        unix_ms=unix_ms,
        new_id=lambda: secrets.token_hex(4),
        rng=Random(),  # noqa: S311 - spreads pauses
    )


DRIVERS: dict[str, Callable[[Config, Mapping[str, ScaledPoolSection], Surroundings], Driver]] = {
    "process": _process,
    "kubernetes": _kubernetes,
    "docker": _docker,
    "dry-run": _dry_run,
}


# What comes with the extra of the driver's name, and is imported when it is opened.
_LIBRARIES = {"kubernetes": "lightkube", "docker": "aiodocker"}


def make_driver(cfg: Config, pools: Mapping[str, ScaledPoolSection], around: Surroundings) -> Driver:
    """
    Raises:
        ConfigError: this installation has no such driver.
    """
    name = cfg.scaler.driver
    library = _LIBRARIES.get(name)
    if library and find_spec(library) is None:
        raise ConfigError(f"scaler.driver {name} needs `pip install 'penstock[{name}]'`", param="scaler.driver")
    return DRIVERS[name](cfg, pools, around)


def consumer_program(cfg: Config, pool: str, section: ScaledPoolSection, around: Surroundings) -> ProcessProgram:
    """A consumer of `pool` with our own configuration and the pool's arguments on top."""
    words = [*_passed_on(around.arguments), *_memory(cfg, section), *section.arguments]
    own = ["--consumer.pool", pool, "--consumer.grace_s", f"{section.drain_s:g}"]
    return ProcessProgram(
        command=[sys.executable, "-P", "-m", "consumer", *words, *own],
        environment={
            **around.environment,
            **section.environment,
            # Not among the arguments, which everybody on the machine may read.
            "PENSTOCK__BROKER__URL": around.broker_url,
            "PENSTOCK__DATA_DIR": str(around.data_dir),
            "PENSTOCK__LOG__FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        },
        need=GpuNeed(gpus=section.gpus_per_replica, consumers_per_gpu=section.consumers_per_gpu),
    )


def container_program(cfg: Config, section: ScaledPoolSection, around: Surroundings) -> ContainerProgram:
    """A consumer in a container: our environment's settings, then the driver's, then the pool's."""
    environment = {
        **settings_to_pass_on(around.environment),
        "PENSTOCK__BROKER__URL": around.broker_url,
        "PENSTOCK__LOG__FORMAT": "json",
        **cfg.scaler.docker.environment,
        **section.environment,
    }
    return ContainerProgram(
        arguments=[*_memory(cfg, section), *section.arguments],
        environment=environment,
        need=GpuNeed(gpus=section.gpus_per_replica, consumers_per_gpu=section.consumers_per_gpu),
        drain_s=section.drain_s,
    )


def _memory(cfg: Config, section: ScaledPoolSection) -> list[str]:
    """What each of several engines on one GPU may take of it."""
    if section.consumers_per_gpu == 1 or cfg.engine.kind != "vllm":
        return []
    return ["--engine.gpu_memory_utilization", str(round(_MEMORY_SHARE / section.consumers_per_gpu, 3))]


def _passed_on(arguments: Sequence[str]) -> list[str]:
    """Without what would make all consumers one: its name, its pool and its port."""
    passed: list[str] = []
    skips_value = False
    for word in arguments:
        if word.partition("=")[0].replace("-", "_") in {"__consumer.name", "__consumer.pool", "__consumer.health_port"}:
            skips_value = "=" not in word
        elif not (skips_value and not word.startswith("--")):
            passed.append(word)
            skips_value = False
    return passed
