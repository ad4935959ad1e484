"""Consumers as processes on this machine. They outlive the scaler, and the next one finds them by their records.

One at a time: a file is locked while a driver is open, whatever a lease says.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from infra.children import WELL_AFTER_S, Death, death_of, last_words
from scaler.drivers import processes
from scaler.drivers.gpus import GpuNeed, free_gpus
from scaler.drivers.port import DriverRefused, DriverUnavailable, Fleet
from scaler.drivers.process_record import Record, Records

log = logging.getLogger(__name__)

NAME_VARIABLE = "PENSTOCK__CONSUMER__NAME"
# One that says a person must act, or never was ready in three starts, is still tried: the person may have acted.
_HOPELESS_PAUSE_S = 60.0
# Where it was somebody else's child: it ended, and nobody knows how.
_UNKNOWN_EXIT = 1


class ProcessProgram(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool's consumers are started."""

    command: Sequence[str]
    environment: Mapping[str, str]
    need: GpuNeed = GpuNeed(gpus=0)


class Processes:
    """The driver."""

    name = "process"

    def __init__(
        self,
        folder: Path,
        program_of: Callable[[str], ProcessProgram],
        *,
        gpus: Sequence[str],
        unix_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._folder = folder
        self._program_of = program_of
        self._gpus = gpus
        self._unix_ms = unix_ms
        self._new_id = new_id
        self._records = Records(folder)
        self._pools: dict[str, dict[str, Record]] = {}
        self._watches: dict[str, processes.Watch] = {}
        self._restarts: dict[str, asyncio.TimerHandle] = {}
        self._lock = -1
        self._on_change: Callable[[str], None] = lambda _: None

    async def open(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._take_lock()
        self._pools = self._records.read()
        for pool, records in list(self._pools.items()):
            for record in list(records.values()):
                self._find_again(pool, record)

    async def current(self, pool: str) -> Fleet:
        records = self._pools.get(pool, {})
        for record in records.values():
            if record.pid and not record.is_ready and self._records.says_ready(pool, record):
                record.is_ready = True
                self._records.write(pool, record)
        replicas = [record.replica for record in records.values()]
        return Fleet(pool=pool, unix_ms=self._unix_ms(), replicas=replicas, gpus=len(self._gpus))

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        records = self._pools.setdefault(pool, {})
        staying = [record for record in records.values() if not record.is_draining]
        for record in self._in_order_of_leaving(pool, staying, victims)[: max(0, len(staying) - replicas)]:
            self._drain(pool, record)
        for number in range(len(staying), replicas):
            self._start_new(pool, f"{number} of {replicas}")

    async def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        for timer in self._restarts.values():
            timer.cancel()
        self._watches, self._restarts, self._pools = {}, {}, {}
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def ask_again_to_stop(self) -> None:
        """A second SIGTERM, after which those that drain hand back what they hold."""
        for records in self._pools.values():
            for record in records.values():
                if record.is_draining:
                    processes.ask_to_stop(record.pid)

    # -- starting ----------------------------------------------------------------------------------------------------

    def _start_new(self, pool: str, so_far: str) -> None:
        need = self._program_of(pool).need
        everyone = [record.taken for records in self._pools.values() for record in records.values()]
        gpus = free_gpus(self._gpus, everyone, need)
        if gpus is None:
            raise DriverUnavailable(
                f"{so_far} consumers of pool {pool} have a GPU, and there is none for another: "
                "others have them all, or drain and have not let go yet"
            )
        name = f"{pool[:48]}-{self._new_id()}"
        record = Record(id=name, asked_unix_ms=self._unix_ms(), gpus=gpus, share=need.share)
        self._pools[pool][name] = record
        try:
            self._start(pool, record)
        except DriverRefused:
            del self._pools[pool][name]
            self._records.remove(pool, name)
            raise

    def _start(self, pool: str, record: Record) -> None:
        program = self._program_of(pool)
        environment = {**program.environment, NAME_VARIABLE: record.id}
        if record.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(record.gpus)
        record.pid, record.start_ticks, record.is_ready = 0, 0, False
        record.started_unix_ms, record.next_start_unix_ms = self._unix_ms(), 0
        record.log_from = self._records.log_end(pool, record.id)
        # Before the process: should we die between the two, its environment tells whose it is.
        self._records.write(pool, record)
        try:
            record.pid = processes.spawn(program.command, environment, self._records.log_path(pool, record.id))
        except OSError as error:
            raise DriverRefused(f"{program.command[0]} cannot be started: {error.strerror}") from error
        record.start_ticks = processes.start_ticks_of(record.pid)
        self._records.write(pool, record)
        self._watch(pool, record)
        log.info("replica.started", extra={"pool": pool, "replica": record.id, "pid": record.pid, "gpus": record.gpus})

    def _start_again(self, pool: str, record: Record) -> None:
        self._restarts.pop(record.id, None)
        record.restarts += 1
        try:
            self._start(pool, record)
        except DriverRefused as error:
            log.warning("replica.not_started", extra={"replica": record.id, "error": error.message})
            self._start_later(pool, record, _HOPELESS_PAUSE_S)
        self._on_change(pool)

    def _start_later(self, pool: str, record: Record, pause_s: float) -> None:
        record.pid = 0
        record.next_start_unix_ms = self._unix_ms() + int(pause_s * 1000)
        self._records.write(pool, record)
        loop = asyncio.get_running_loop()
        self._restarts[record.id] = loop.call_later(pause_s, self._start_again, pool, record)

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _in_order_of_leaving(self, pool: str, staying: list[Record], victims: Sequence[str]) -> list[Record]:
        """Whoever has not begun costs nothing; of these the youngest has done least."""
        idle = [record for record in staying if not record.pid or not self._is_running(pool, record)]
        idle.sort(key=lambda record: (record.pid != 0, -record.asked_unix_ms))
        by_name = {record.id: record for record in staying if record not in idle}
        named = [by_name.pop(name) for name in victims if name in by_name]
        return [*idle, *named, *by_name.values()]

    def _is_running(self, pool: str, record: Record) -> bool:
        return record.is_ready or self._records.says_ready(pool, record)

    def _drain(self, pool: str, record: Record) -> None:
        timer = self._restarts.pop(record.id, None)
        if timer is not None:
            timer.cancel()
        log.info("replica.draining", extra={"pool": pool, "replica": record.id, "pid": record.pid})
        if not record.pid:
            self._forget(pool, record)
            return
        record.is_draining = True
        self._records.write(pool, record)
        processes.ask_to_stop(record.pid)

    def _forget(self, pool: str, record: Record) -> None:
        self._pools.get(pool, {}).pop(record.id, None)
        self._records.remove(pool, record.id)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _watch(self, pool: str, record: Record) -> None:
        self._watches[record.id] = processes.Watch(record.pid, lambda: self._ended(pool, record))

    def _ended(self, pool: str, record: Record) -> None:
        self._watches.pop(record.id, None)
        # Its group first: while its number is not given back, nobody else's group can have it.
        processes.sweep(record.pid)
        exit_code = processes.reaped(record.pid)
        if record.is_draining:
            log.info("replica.stopped", extra={"pool": pool, "replica": record.id, "exit_code": exit_code})
            self._forget(pool, record)
        else:
            self._died(pool, record, _UNKNOWN_EXIT if exit_code is None else exit_code)
        self._on_change(pool)

    def _died(self, pool: str, record: Record, exit_code: int) -> None:
        lived_s = (self._unix_ms() - record.started_unix_ms) / 1000
        record.deaths = 0 if lived_s >= WELL_AFTER_S else record.deaths
        was_ready = self._is_running(pool, record)
        death = death_of(exit_code, lived_s=lived_s, deaths_before=record.deaths, was_ready=was_ready)
        record.deaths += 1
        pause_s = _HOPELESS_PAUSE_S if death.restart_in_s is None else death.restart_in_s
        self._report(pool, record, death, pause_s)
        self._start_later(pool, record, pause_s)

    def _report(self, pool: str, record: Record, death: Death, pause_s: float) -> None:
        log.warning(
            "replica.died",
            extra={
                "pool": pool,
                "replica": record.id,
                "reason": death.reason,
                "last_words": last_words(self._records.last_lines(pool, record.id)),
                "restart_in_s": pause_s,
            },
        )

    # -- coming back -------------------------------------------------------------------------------------------------

    def _find_again(self, pool: str, record: Record) -> None:
        """A record of an earlier driver's."""
        if not record.pid and not record.next_start_unix_ms:
            # It died between the start and the note of it.
            record.pid = processes.found_by_environment(f"{NAME_VARIABLE}={record.id}")
            record.start_ticks = processes.start_ticks_of(record.pid) if record.pid else 0
        if record.pid and processes.is_alive(record.pid, record.start_ticks):
            self._records.write(pool, record)
            self._watch(pool, record)
            log.info("replica.found", extra={"pool": pool, "replica": record.id, "pid": record.pid})
        elif record.is_draining:
            self._forget(pool, record)
        elif record.pid:
            # Perhaps still ours to bury, where an earlier driver of this process started it.
            exit_code = processes.reaped(record.pid)
            self._died(pool, record, _UNKNOWN_EXIT if exit_code is None else exit_code)
        else:
            self._start_later(pool, record, max(0.0, (record.next_start_unix_ms - self._unix_ms()) / 1000))

    def _take_lock(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DriverRefused(f"{self._folder} cannot be used: {error.strerror}; see data_dir") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise DriverUnavailable(f"another scaler has the consumers below {self._folder}") from error
