"""A fleet that exists only on paper: what would be started and stopped, kept in a file so that a restart finds it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from scaler.drivers.port import DriverRefused, Fleet, Replica

log = logging.getLogger(__name__)


class DryRun:
    """Replicas run as soon as they are asked for, and are gone as soon as they are not."""

    name = "dry-run"

    def __init__(self, folder: Path, *, unix_ms: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._file = folder / "dry-run.json"
        self._unix_ms = unix_ms
        self._new_id = new_id

    async def open(self, on_change: Callable[[str], None]) -> None:  # noqa: ARG002 - nothing changes by itself here
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DriverRefused(f"cannot keep the dry run in {self._file}: {error.strerror}") from error

    async def current(self, pool: str) -> Fleet:
        return Fleet(pool=pool, unix_ms=self._unix_ms(), replicas=self._read().get(pool, []))

    async def apply(self, pool: str, replicas: int, *, victims: Sequence[str] = ()) -> None:
        fleets = self._read()
        have = fleets.get(pool, [])
        leaving = [one for name in victims for one in have if one.id == name]
        leaving += [one for one in have if one not in leaving]
        gone = {one.id for one in leaving[: max(0, len(have) - replicas)]}
        stay = [one for one in have if one.id not in gone]
        now = self._unix_ms()
        more = [self._new(pool, now) for _ in range(replicas - len(have))]
        if gone or more:
            log.info("fleet.imagined", extra={"pool": pool, "replicas": replicas, "started": len(more)})
            fleets[pool] = [*stay, *more]
            self._write(fleets)

    async def close(self) -> None: ...

    def _new(self, pool: str, now: int) -> Replica:
        name = f"{pool[:48]}-dry-{self._new_id()}"
        # No consumer: nobody will ever hear of it.
        return Replica(id=name, phase="running", asked_unix_ms=now)

    def _read(self) -> dict[str, list[Replica]]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[Replica]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise DriverRefused(f"{self._file} cannot be read: {error}; remove it") from error

    def _write(self, fleets: dict[str, list[Replica]]) -> None:
        try:
            self._file.write_bytes(msgspec.json.encode(fleets))
        except OSError as error:
            raise DriverRefused(f"{self._file} cannot be written: {error.strerror}") from error
