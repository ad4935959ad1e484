"""The three files of a run: input, output, and the sidecar that makes it repeatable. Whole lines, durable in order."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from producer.batch import ledger
from producer.batch.ledger import Sidecar, Written
from schemas.errors import ConfigError

# Lines are flushed at once; the disk is waited for at most this often.
FSYNC_EVERY_S = 2.0


class Survey:
    """What one pass over the input tells: how many lines it has, empty ones apart, and what file it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        digest = hashlib.sha256()
        try:
            with path.open("rb") as handle:
                for line in handle:
                    digest.update(line)
                    self.lines += bool(line.strip())
        except OSError as error:
            raise ConfigError(f"input {path}: {error.strerror}", param="-i") from error
        self.sha256 = digest.hexdigest()


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1, one in memory at a time."""
    with path.open("rb") as handle:
        yield from ledger.numbered(handle)


def sidecar_path(output: Path) -> Path:
    return output.with_name(output.name + ".penstock")


def broker_dir(output: Path) -> Path:
    """Where a run keeps an embedded broker of its own until it is over."""
    return output.with_name(output.name + ".penstock-broker").resolve()


def read_sidecar(output: Path) -> Sidecar | None:
    """
    Raises:
        ConfigError: it is there and unreadable.
    """
    path = sidecar_path(output)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} is unreadable ({error}): remove it and {output} to start anew") from error


def write_sidecar(output: Path, sidecar: Sidecar) -> None:
    """Before anything is submitted: a run that forgot its id would compute everything again."""
    path = sidecar_path(output)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as handle:
        handle.write(msgspec.json.encode(sidecar))
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


class Output:
    """The output file, open for appending and locked against a second run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = Written(ids=set(), failed=0, length=0)
        self._life = ExitStack()
        self._synced_s = 0.0

    def __enter__(self) -> Self:
        """
        Raises:
            ConfigError: it cannot be written, another run writes it, or it holds something else.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._life.enter_context(self.path.open("a+b"))
        except OSError as error:
            raise ConfigError(f"output {self.path}: {error.strerror}", param="-o") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._life.close()
            raise ConfigError(f"output {self.path}: another run-batch is writing it", param="-o") from error
        try:
            self._handle.seek(0)
            self.written = ledger.written(self._handle)
            self._handle.truncate(self.written.length)
        except BaseException:
            self._life.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._life.close()

    def append(self, line: bytes, now_s: float) -> None:
        self._handle.write(line)
        self._handle.flush()
        if now_s - self._synced_s >= FSYNC_EVERY_S:
            self._synced_s = now_s
            self.sync()

    def sync(self) -> None:
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def clear(self) -> None:
        self._handle.truncate(0)
        self.written = Written(ids=set(), failed=0, length=0)
