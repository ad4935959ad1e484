"""Containers as a scaler sees them, and what a new one is made from. Pure.

What must outlive the scaler is kept with the container: its pool, name and GPUs as labels, and that it was asked to go,
and until when it may, in its own name, because labels cannot be changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from scaler.drivers.gpus import GpuNeed, Taken
from scaler.drivers.port import Fleet, Replica
from schemas.driver_config import DockerSection
from schemas.errors import PenstockError

POOL_LABEL = "penstock.pool"
_NAME_LABEL = "penstock.consumer"
_ASKED_LABEL = "penstock.asked_unix_ms"
_GPUS_LABEL = "penstock.gpus"
_SHARE_LABEL = "penstock.gpu_share"
_MARK = ".drains-until-"
HEALTH_PORT = 8080
_NS = 1_000_000_000


class Gone(PenstockError):
    """The container is not there any more, or does not run."""


class ContainerProgram(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool's consumers are started; `drain_s` is what they may take to end."""

    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = {}
    need: GpuNeed = GpuNeed(gpus=0)
    drain_s: float = 3600.0


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of one. `drains_until_unix_s` 0: it was not asked to go."""

    id: str
    own_name: str
    consumer: str
    pool: str
    status: str
    health: str = ""
    restarts: int = 0
    asked_unix_ms: int = 0
    drains_until_unix_s: int = 0
    gpus: Sequence[str] = ()
    share: float = 1.0
    last_exit: int = 0
    error: str = ""

    @property
    def is_there(self) -> bool:
        """Not one that ended, that a person stopped, or that never was started."""
        return self.status in {"running", "restarting", "paused"}

    @property
    def is_draining(self) -> bool:
        return self.drains_until_unix_s > 0

    @property
    def taken(self) -> Taken:
        return Taken(gpus=self.gpus, share=self.share)


def fleet_of(pool: str, found: Sequence[Container], gpus: int, unix_ms: int) -> Fleet:
    replicas = [replica_of(one) for one in found if one.is_there]
    return Fleet(pool=pool, unix_ms=unix_ms, replicas=replicas, gpus=gpus)


def replica_of(one: Container) -> Replica:
    phase = _phase(one)
    reason = ""
    if phase == "failing":
        died = f"exit code {one.last_exit}" if one.status == "restarting" else ""
        reason = ", ".join(part for part in (one.status, died, one.error) if part)
    return Replica(
        id=one.consumer,
        consumer=one.consumer,
        phase=phase,
        asked_unix_ms=one.asked_unix_ms,
        restarts=one.restarts,
        reason=reason,
    )


def _phase(one: Container) -> Literal["starting", "running", "draining", "failing"]:
    if one.is_draining:
        return "draining"
    if one.status != "running":
        return "failing"
    return "running" if one.health in {"", "none", "healthy"} else "starting"


def in_order_of_leaving(staying: Sequence[Container], victims: Sequence[str]) -> list[Container]:
    """Who does not work, the youngest first; then the victims in their order; then the rest, the youngest first."""
    places = {name: place for place, name in reversed(list(enumerate(victims)))}
    last = len(places) + 1

    def key(one: Container) -> tuple[int, int, int, str]:
        order = {"failing": 0, "starting": 1}.get(_phase(one), 2)
        return (order, places.get(one.consumer, last) if order == 2 else 0, -one.asked_unix_ms, one.consumer)

    return sorted(staying, key=key)


def name_while_draining(one: Container, until_unix_s: int) -> str:
    return f"{one.own_name}{_MARK}{until_unix_s}"


def container_of(inspected: Mapping[str, Any]) -> Container:
    """From what the engine says of it."""
    labels = cast("dict[str, str]", inspected["Config"].get("Labels") or {})
    state = cast("dict[str, Any]", inspected["State"])
    health = cast("dict[str, str]", state.get("Health") or {})
    own_name, _, until = str(inspected["Name"]).removeprefix("/").partition(_MARK)
    return Container(
        id=inspected["Id"],
        own_name=own_name,
        consumer=labels.get(_NAME_LABEL, own_name),
        pool=labels.get(POOL_LABEL, ""),
        status=state.get("Status", ""),
        health=health.get("Status", ""),
        restarts=inspected.get("RestartCount", 0),
        asked_unix_ms=_number(labels.get(_ASKED_LABEL, "")),
        drains_until_unix_s=_number(until),
        gpus=[gpu for gpu in labels.get(_GPUS_LABEL, "").split(",") if gpu],
        share=float(labels.get(_SHARE_LABEL, "1")),
        last_exit=state.get("ExitCode", 0),
        error=state.get("Error", ""),
    )


def config_of(
    cfg: DockerSection, pool: str, program: ContainerProgram, *, name: str, gpus: Sequence[str], unix_ms: int
) -> dict[str, Any]:
    """A new container, as the engine's API wants it."""
    environment = {
        **cfg.environment,
        **program.environment,
        "PENSTOCK__CONSUMER__NAME": name,
        "PENSTOCK__CONSUMER__POOL": pool,
        "PENSTOCK__CONSUMER__GRACE_S": f"{program.drain_s:g}",
        "PENSTOCK__CONSUMER__HEALTH_PORT": str(HEALTH_PORT),
    }
    host: dict[str, Any] = {
        # Docker starts again what dies, with growing pauses; but not what it was told to stop.
        "RestartPolicy": {"Name": "unless-stopped"},
        # A first process of its own: Linux withholds SIGTERM from a first process that has no handler for it yet.
        "Init": True,
        "Binds": list(cfg.volumes),
    }
    if cfg.network:
        host["NetworkMode"] = cfg.network
    if cfg.shm_bytes:
        host["ShmSize"] = cfg.shm_bytes
    if gpus:
        host["DeviceRequests"] = [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
    made: dict[str, Any] = {
        "Image": cfg.image,
        "Cmd": [*cfg.command, *program.arguments],
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Labels": {
            POOL_LABEL: pool,
            _NAME_LABEL: name,
            _ASKED_LABEL: str(unix_ms),
            _GPUS_LABEL: ",".join(gpus),
            _SHARE_LABEL: str(program.need.share),
        },
        "HostConfig": host,
    }
    if cfg.health:
        every = int(cfg.health_interval_s * _NS)
        made["Healthcheck"] = {"Test": ["CMD", *cfg.health], "Interval": every, "Timeout": 5 * _NS, "Retries": 2}
    return made


def settings_to_pass_on(environment: Mapping[str, str]) -> dict[str, str]:
    """A scaler's own `PENSTOCK__…` that its consumers need too: the broker's above all."""
    own = ("PENSTOCK__SCALER__", "PENSTOCK__CONSUMER__", "PENSTOCK__DISPATCHER__", "PENSTOCK__GATEWAY__")
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("PENSTOCK__") and not name.startswith(own) and name != "PENSTOCK__DATA_DIR"
    }


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
