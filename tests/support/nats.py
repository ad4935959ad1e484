"""A real nats-server for tests: the embedded one in a folder of its own, or a container when a Docker daemon answers.

`PENSTOCK_TEST_DOCKER=1` asks for the container (testcontainers); it is the same suite against the official image.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from infra.embedded import EmbeddedServer

IMAGE = "nats:2.15-alpine"


class NatsServer:
    """Start, kill -9 and restart on the same port and data."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._server = EmbeddedServer(data_dir)
        self.url = ""

    def start(self) -> str:
        self.url = asyncio.run(self._server.start())
        return self.url

    def stop(self) -> None:
        asyncio.run(self._server.stop())

    def kill(self) -> None:
        """kill -9 of nats-server itself; returns when it is gone."""
        os.kill(self._server.pid, signal.SIGKILL)
        asyncio.run(self._server.wait_ended())

    def restart(self) -> None:
        before = self.url
        after = self.start()
        assert after == before, "the port was taken by somebody else meanwhile"


@contextlib.contextmanager
def nats_server() -> Generator[str]:
    """The URL of a running server."""
    if wants_docker():
        with _container() as url:
            yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    server = NatsServer(folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wants_docker() -> bool:
    """Asked for, and a daemon answers."""
    if os.environ.get("PENSTOCK_TEST_DOCKER") != "1" or shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _container() -> Generator[str]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container: Any = DockerContainer(IMAGE).with_command("-js").with_exposed_ports(4222)
    with container:
        wait_for_logs(container, "Server is ready")
        yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"
