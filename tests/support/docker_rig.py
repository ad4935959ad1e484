"""A Docker engine as a platform for the drivers' conformance suite: a real one, or a stand-in.

`PENSTOCK_TEST_DOCKER=1` asks for the real one, at $DOCKER_HOST or where the `docker` command finds it. It runs a few
containers of PENSTOCK_TEST_DOCKER_IMAGE, any image with a shell, and removes them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from random import Random
from typing import Self

from infra.life import unix_ms
from scaler.drivers.containers import ContainerProgram
from scaler.drivers.docker import DockerDriver
from scaler.drivers.port import Driver
from schemas.driver_config import DockerSection
from tests.support.docker_engine import StandInEngine
from tests.support.nats import wants_docker

IMAGE = "penstock-test-stub:latest"
FROM = os.environ.get("PENSTOCK_TEST_DOCKER_IMAGE", "busybox:stable")
# As `stub_consumer.py`, for images without Python; and it dies when a file with its name appears.
SCRIPT = """#!/bin/sh
me=$CONTROL/$PENSTOCK__CONSUMER__NAME
trap 'stop=1' TERM
rest() { [ -e "$me.die" ] && rm "$me.die" && exit 1; sleep 0.05; }
[ -e "$CONTROL/crash" ] && exit 1
while [ -e "$CONTROL/wait" ] && [ -z "$stop" ]; do rest; done
[ -z "$stop" ] && touch "$me.ready"
while [ -z "$stop" ]; do rest; done
while [ -e "$CONTROL/busy" ] && [ -e "$me.ready" ]; do rest; done
exit 0
"""


class DockerRig:
    """`is_real`: Docker itself, which must be asked for."""

    can = frozenset({"starts_slowly", "works", "dies", "fails"})

    def __init__(self, folder: Path, *, is_real: bool) -> None:
        self._control = folder / "control"
        self._control.mkdir()
        self._control.chmod(0o777)
        (self._control / "run").write_text(SCRIPT)
        self._is_real = is_real
        # A socket's path must be short.
        self._short = Path(tempfile.mkdtemp(prefix="penstock-"))
        self._engine = StandInEngine(self._short / "docker.sock", images={IMAGE})
        self._numbers = itertools.count(1)
        self._run = self._short.name.removeprefix("penstock-").replace("_", "-")

    async def __aenter__(self) -> Self:
        if self._is_real:
            docker("tag", FROM, IMAGE)
        else:
            await self._engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._is_real:
            for one in docker("ps", "-aq", "--filter", "label=penstock.pool").split():
                # Some the driver removes just now.
                with contextlib.suppress(subprocess.CalledProcessError):
                    docker("rm", "-f", one)
        else:
            await self._engine.stop()
        shutil.rmtree(self._short, ignore_errors=True)

    def driver(self) -> Driver:
        section = DockerSection(
            host=(os.environ.get("DOCKER_HOST", "") if self._is_real else f"unix://{self._engine.path}"),
            image=IMAGE,
            command=["/bin/sh", "-c", ". $CONTROL/run"],
            environment={"CONTROL": "/control" if self._is_real else str(self._control)},
            volumes=[f"{self._control}:/control"],
            health=["/bin/sh", "-c", "test -e $CONTROL/$PENSTOCK__CONSUMER__NAME.ready"],
            health_interval_s=0.1,
            tidy_s=0.2,
            backoff_s_max=0.3,
        )
        return DockerDriver(
            section,
            lambda _: ContainerProgram(drain_s=60),
            gpus=[],
            unix_ms=unix_ms,
            new_id=lambda: f"{self._run}-{next(self._numbers):03}",
            rng=Random(2),
        )

    def start_slowly(self) -> None:
        (self._control / "wait").touch()

    def let_start(self) -> None:
        (self._control / "wait").unlink()

    def keep_working(self) -> None:
        (self._control / "busy").touch()

    def let_finish(self) -> None:
        (self._control / "busy").unlink()

    async def kill(self, replica: str) -> None:
        (self._control / f"{replica}.ready").unlink(missing_ok=True)
        (self._control / f"{replica}.die").touch()

    def crash_all(self) -> None:
        (self._control / "crash").touch()

    def break_off(self) -> None:
        if self._is_real:
            docker("rmi", "-f", IMAGE)
        else:
            self._engine.is_away = True

    def mend(self) -> None:
        (self._control / "crash").unlink(missing_ok=True)
        self._engine.is_away = False
        if self._is_real:
            docker("tag", FROM, IMAGE)


def has_real_docker() -> bool:
    return wants_docker()


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout
