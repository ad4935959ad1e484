"""The scaler's table of the configuration: which pools it keeps at which size, and what it starts for them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from schemas.driver_config import DockerSection, KubernetesSection
from schemas.section import Name, Port, Positive, Seconds, Section
from schemas.subjects import LANES

Count = Annotated[int, msgspec.Meta(ge=0)]


class ScalingWindowSection(Section, frozen=True, kw_only=True):
    """Opens whenever `cron` says, in time zone `tz`, for `hours`. `target` is a floor and a ceiling in one."""

    cron: str
    tz: str = "UTC"
    hours: Annotated[float, msgspec.Meta(gt=0)]
    floor: Count = 0
    ceiling: Count | None = None
    target: Count | None = None
    # Local dates on which it does not open: 2026-12-25, 2026-12-24..2027-01-01, or 12-25 of every year.
    except_on: list[str] = []
    # Where there are any, it opens on no others: what replaces another window on its exceptions.
    only_on: list[str] = []


class ScaledPoolSection(Section, frozen=True, kw_only=True):
    """One pool. What it is started with goes to the consumer's own configuration."""

    minimum: Count = 0
    maximum: Annotated[int, msgspec.Meta(ge=1)] = 8
    # As `penstock consumer` takes them: ["--engine.model", "Qwen/Qwen2.5-7B-Instruct"].
    arguments: list[str] = []
    environment: dict[str, str] = {}
    gpus_per_replica: Count = 1
    # Several consumers on one GPU, each with its part of the memory; only where a replica has one GPU.
    consumers_per_gpu: Positive = 1
    # Its share where pools want more GPUs than there are.
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    # 0: no limit. Counted from midnight UTC.
    gpu_hours_a_day: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    windows: dict[Name, ScalingWindowSection] = {}
    # What a start takes until it was measured.
    cold_start_s: Annotated[float, msgspec.Meta(gt=0)] = 180.0
    # Without interactive jobs for so long, none are expected: the last consumer may go. 0: nine cold starts, which is
    # what a start must be worth.
    idle_s: Seconds = 0.0
    # One that is asked to go may finish what it runs within this; no job is interrupted that takes less.
    drain_s: Seconds = 3600.0
    # What jobs without a deadline may wait, by lane.
    waits_s: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} must not be above maximum {self.maximum}")
        if self.consumers_per_gpu > 1 and self.gpus_per_replica != 1:
            raise ValueError("consumers_per_gpu needs gpus_per_replica 1: only whole GPUs are shared out")
        if unknown := sorted(set(self.waits_s) - LANES):
            raise ValueError(f"waits_s: there is no lane {unknown[0]!r}: use {', '.join(sorted(LANES))}")


class GuardSection(Section, frozen=True, kw_only=True):
    """What a change must keep to, for every pool."""

    # At most so many more, or fewer, at once. 0: no limit; a backlog is answered in one step.
    step_up: Count = 0
    step_down: Count = 0
    # After a change in the one direction, none in the other for so long.
    cooldown_up_s: Seconds = 0.0
    cooldown_down_s: Seconds = 0.0
    # Not worth a drain: a wish to be smaller by no more than this.
    hysteresis: Count = 0
    # Older observations decide nothing.
    age_max_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    # With more consumers that die again and again than this, no more are added.
    crash_looping_max: Count = 0


class ScalerSection(Section, frozen=True, kw_only=True):
    """One scaler process. Run two: one leads, the other stands by."""

    driver: Literal["process", "kubernetes", "docker", "dry-run"] = "process"
    # Empty: the pool `consumer.pool`, with defaults.
    pools: dict[Name, ScaledPoolSection] = {}
    # Empty: host name and process id.
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,64}$")] = ""
    # How often it looks; the first job of an empty pool is heard at once.
    tick_s: Annotated[float, msgspec.Meta(ge=0.1)] = 5.0
    # A leader that was not heard for this long is replaced.
    lease_s: Annotated[float, msgspec.Meta(ge=0.5)] = 5.0
    # All pools together. 0: what the driver finds.
    gpus: Count = 0
    # Which GPUs of this machine the process driver may give out, as CUDA_VISIBLE_DEVICES names them. Empty: all. Those
    # of its host that the docker driver may give out; empty: none.
    gpu_ids: list[str] = []
    kubernetes: KubernetesSection = KubernetesSection()
    docker: DockerSection = DockerSection()
    guard: GuardSection = GuardSection()
    health_port: Port = 0
    health_host: str = "127.0.0.1"
