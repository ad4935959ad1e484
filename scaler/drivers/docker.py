"""Consumers as containers of one Docker host: for a machine or two with GPUs and no cluster.

Docker starts again what dies. One that must go is sent SIGTERM and renamed, so that whoever scales next knows; it ends
by itself when it has finished its jobs, and is removed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

import msgspec

from scaler.drivers.containers import (
    Container,
    ContainerProgram,
    Gone,
    config_of,
    fleet_of,
    in_order_of_leaving,
    name_while_draining,
)
from scaler.drivers.gpus import Taken, free_gpus
from scaler.drivers.port import DriverRefused, DriverUnavailable, Fleet
from schemas.driver_config import DockerSection
from schemas.errors import PenstockError

if TYPE_CHECKING:
    from scaler.drivers.docker_api import DockerApi

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
# Time for a consumer to say goodbye after its grace.
_AFTER_GRACE_S = 15


class DockerDriver:
    """`gpus`: ids that containers may have. `program_of` says how a pool's consumers are started."""

    name = "docker"

    def __init__(
        self,
        cfg: DockerSection,
        program_of: Callable[[str], ContainerProgram],
        *,
        gpus: Sequence[str],
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
        rng: Random,
    ) -> None:
        self._cfg = cfg
        self._program_of = program_of
        self._gpus = gpus
        self._unix_ms = unix_ms
        self._new_id = new_id
        self._rng = rng
        self._docker: DockerApi | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_news = asyncio.Event()
        # Asked to go, and perhaps not renamed yet: until when they may.
        self._told: dict[str, int] = {}
        self._applying = asyncio.Lock()

    async def open(self, on_change: Callable[[str], None]) -> None:
        try:
            from scaler.drivers.docker_api import DockerApi  # noqa: PLC0415 - an extra that most do not need
        except ImportError as error:
            raise DriverRefused("scaler.driver docker needs `pip install 'penstock[docker]'`") from error
        docker = DockerApi.made(self._cfg)
        try:
            version = await docker.version()
        except BaseException:
            await docker.close()
            raise
        self._docker = docker
        self._tasks = [
            asyncio.create_task(self._watch(docker, on_change), name="docker watch"),
            asyncio.create_task(self._tidy_up(docker), name="docker tidy"),
        ]
        log.info("driver.opened", extra={"driver": self.name, "version": version})

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    async def current(self, pool: str) -> Fleet:
        found = await self._found(self._opened())
        return fleet_of(pool, [one for one in found if one.pool == pool], len(self._gpus), self._unix_ms())

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        docker = self._opened()
        async with self._applying:
            everyone = await self._found(docker)
            found = [one for one in everyone if one.pool == pool]
            staying = [one for one in found if one.is_there and not one.is_draining]
            for one in in_order_of_leaving(staying, victims)[: max(0, len(staying) - replicas)]:
                await self._drain(docker, one)
            await self._start(docker, pool, len(staying), replicas, [one.taken for one in everyone if one.is_there])

    def _opened(self) -> DockerApi:
        if self._docker is None:
            raise DriverUnavailable("the Docker driver is not open")
        return self._docker

    async def _found(self, docker: DockerApi) -> list[Container]:
        return [
            msgspec.structs.replace(one, drains_until_unix_s=one.drains_until_unix_s or self._told.get(one.id, 0))
            for one in await docker.containers()
        ]

    async def _start(self, docker: DockerApi, pool: str, have: int, wanted: int, taken: list[Taken]) -> None:
        """All at once: a container takes up to a second, and who waits for them has little time."""
        if have >= wanted:
            return
        program = self._program_of(pool)
        starts: list[Awaitable[None]] = []
        for _ in range(have, wanted):
            gpus = free_gpus(self._gpus, taken, program.need)
            if gpus is None:
                break
            taken.append(Taken(gpus=gpus, share=program.need.share))
            name = f"{pool[:48]}-{self._new_id()}"
            config = config_of(self._cfg, pool, program, name=name, gpus=gpus, unix_ms=self._unix_ms())
            starts.append(docker.start(f"penstock-{name}", config))
            log.info("replica.starting", extra={"pool": pool, "replica": name, "gpus": gpus})
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if len(starts) < wanted - have:
            raise DriverUnavailable(
                f"{have + len(starts)} of {wanted} consumers of pool {pool} have a GPU, and there is none for another: "
                "others have them all, or drain and have not let go yet"
            )

    async def _drain(self, docker: DockerApi, one: Container) -> None:
        log.info("replica.draining", extra={"pool": one.pool, "replica": one.consumer})
        if one.status != "running":
            # It waits for its next start, so it holds no job.
            await docker.remove(one)
            return
        until = int(self._unix_ms() / 1000 + self._program_of(one.pool).drain_s + _AFTER_GRACE_S)
        try:
            # Before the name: one that is named so and was never told would stay for ever. And only once: a second
            # signal takes its grace away.
            await docker.ask_to_stop(one)
            self._told[one.id] = until
            await docker.rename(one, name_while_draining(one, until))
        except Gone:
            await docker.remove(one)

    async def _tidy(self, docker: DockerApi) -> None:
        """Removes those that have drained, those that do not come to an end, and those that were never started."""
        async with self._applying:
            found = await self._found(docker)
            for one in found:
                is_late = one.is_draining and self._unix_ms() > one.drains_until_unix_s * 1000
                if is_late and one.is_there:
                    log.warning("replica.killed", extra={"replica": one.consumer, "reason": "it did not end in time"})
                if is_late or (one.is_draining and one.status in {"exited", "dead"}) or one.status == "created":
                    await docker.remove(one)
            self._told = {one.id: self._told[one.id] for one in found if one.id in self._told}

    async def _tidy_up(self, docker: DockerApi) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._cfg.tidy_s):
                    await self._is_news.wait()
            self._is_news.clear()
            try:
                await self._tidy(docker)
            except PenstockError as error:
                log.debug("driver.untidy", extra={"error": error.message})

    async def _watch(self, docker: DockerApi, on_change: Callable[[str], None]) -> None:
        failures = 0
        while True:
            try:
                for pool in {one.pool for one in await self._found(docker)}:
                    on_change(pool)
                self._is_news.set()
                async with contextlib.aclosing(docker.changes()) as changes:
                    async for pool in changes:
                        failures = 0
                        on_change(pool)
                        self._is_news.set()
                raise DriverUnavailable("Docker ended its events")
            except Exception as error:  # noqa: BLE001 - whatever it is, the fleet must not go unwatched
                longest_s = min(self._cfg.backoff_s_max, _FIRST_PAUSE_S * 2.0 ** min(failures, 16))
                failures += 1
                pause_s = longest_s * self._rng.uniform(0.5, 1.0)
                said = error.message if isinstance(error, PenstockError) else repr(error)
                log.warning("driver.unwatched", extra={"error": said, "retry_in_s": round(pause_s, 1)})
                await asyncio.sleep(pause_s)
