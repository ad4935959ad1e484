"""What the process driver keeps of each child in a file, so that whoever comes after it finds them again."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from scaler.drivers.gpus import Taken
from scaler.drivers.port import DriverRefused, Replica

log = logging.getLogger(__name__)

# A consumer logs for months; this much of it is kept, and its last words are always among it.
LOG_BYTES_MAX = 16 * 1024 * 1024
_READY = b'"consumer.ready"'
_LAST_WORDS_BYTES = 16 * 1024


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One replica. `pid` 0: it has no process now."""

    id: str
    asked_unix_ms: int
    pid: int = 0
    # With the pid, what tells a process from a later one of the same number.
    start_ticks: int = 0
    started_unix_ms: int = 0
    is_ready: bool = False
    is_draining: bool = False
    restarts: int = 0
    # Deaths in a row, without a long life between them; and when it is started again.
    deaths: int = 0
    next_start_unix_ms: int = 0
    gpus: list[str] = []
    share: float = 1.0
    # Where its log began when it was last started.
    log_from: int = 0

    @property
    def replica(self) -> Replica:
        if self.is_draining:
            phase = "draining"
        elif not self.pid:
            phase = "failing"
        else:
            phase = "running" if self.is_ready else "starting"
        return Replica(
            id=self.id, consumer=self.id, phase=phase, asked_unix_ms=self.asked_unix_ms, restarts=self.restarts
        )

    @property
    def taken(self) -> Taken:
        return Taken(gpus=self.gpus, share=self.share)


class Records:
    """A folder for each pool, a file and a log for each replica."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, dict[str, Record]]:
        """By pool and id, oldest first. What cannot be read is said and left where it is."""
        found: dict[str, dict[str, Record]] = {}
        for path in sorted(self._folder.glob("*/*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except (OSError, msgspec.DecodeError) as error:
                log.warning("replica.unreadable", extra={"file": str(path), "error": str(error)})
                continue
            found.setdefault(path.parent.name, {})[record.id] = record
        return {pool: dict(sorted(one.items(), key=lambda item: item[1].asked_unix_ms)) for pool, one in found.items()}

    def write(self, pool: str, record: Record) -> None:
        """Raises DriverRefused: the disk says no."""
        path = self._path(pool, record.id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(record))
            # Whole or not at all, for whoever reads it after a kill -9.
            fresh.replace(path)
        except OSError as error:
            raise DriverRefused(f"{path} cannot be written: {error.strerror}") from error

    def remove(self, pool: str, replica: str) -> None:
        path = self._path(pool, replica)
        for one in (path, path.with_suffix(".log")):
            with contextlib.suppress(OSError):
                one.unlink()

    def log_path(self, pool: str, replica: str) -> Path:
        return self._path(pool, replica).with_suffix(".log")

    def log_end(self, pool: str, replica: str) -> int:
        """Its size now; cut off where it has become too long (it is written by appending)."""
        path = self.log_path(pool, replica)
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if size <= LOG_BYTES_MAX:
                return size
            os.truncate(path, 0)
        return 0

    def says_ready(self, pool: str, record: Record) -> bool:
        with contextlib.suppress(OSError), self.log_path(pool, record.id).open("rb") as file:
            file.seek(record.log_from)
            return _READY in file.read(LOG_BYTES_MAX)
        return False

    def last_lines(self, pool: str, replica: str) -> list[str]:
        with contextlib.suppress(OSError), self.log_path(pool, replica).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
        return []

    def _path(self, pool: str, replica: str) -> Path:
        return self._folder / pool / f"{replica}.json"
