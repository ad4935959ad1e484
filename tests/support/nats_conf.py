"""A nats-server with a configuration file of ours, on ports and in a folder of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from infra.embedded import find_binary
from tests.support.ports import free_ports

START_S = 20.0


@contextlib.contextmanager
def running_nats(conf: Path, folder: Path, **environment: str) -> Generator[Callable[[str], Any]]:
    """Gives a function that asks its monitor: `monitor("varz")`."""
    client, monitor, cluster = free_ports(3)
    # An address of a command line comes before one of the file.
    flags = ["-a", "127.0.0.1", "-p", str(client), "-m", str(monitor)]
    if "cluster {" in conf.read_text():
        flags += ["--cluster", f"nats://127.0.0.1:{cluster}"]
    with (folder / "nats.log").open("wb") as log:
        process = subprocess.Popen(
            [str(find_binary()), "-c", str(conf), *flags],
            stdout=log,
            stderr=log,
            env={**os.environ, "NATS_DATA": str(folder / "data"), **environment},
        )

    def ask(what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/{what}", timeout=5) as answer:
            return json.load(answer)

    try:
        _wait_for(ask, process, folder / "nats.log")
        yield ask
    finally:
        process.kill()
        process.wait()


def _wait_for(ask: Callable[[str], Any], process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            if ask("varz")["jetstream"]:
                return
        time.sleep(0.05)
    raise AssertionError(f"nats-server did not start: {log.read_text()}")
