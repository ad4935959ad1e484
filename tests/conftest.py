"""Fixtures every suite may use."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.consumer import ConsumerProcess
from tests.support.engines import EngineInThread, running_engine
from tests.support.kube import KubeServer, forget_sockets, kube_server
from tests.support.kube_stand_in import KubeStandIn
from tests.support.nats import NatsServer, nats_server

# The same examples every time in CI: a submission must not fail on what it did not touch. At home they are random.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")

# A shell starts what runs in the background deaf to Ctrl-C, and every process that we start would be so too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def nats_url() -> Generator[str]:
    """One server for the whole run; tests keep apart by pool or tenant."""
    with nats_server() as url:
        yield url


@pytest.fixture
def own_nats(tmp_path: Path) -> Generator[NatsServer]:
    """A server of the test's own, to be killed and restarted."""
    server = NatsServer(tmp_path / "broker")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, Path]]:
    """The URL of a broker with one consumer on the simulated engine, for a whole module of tests that break neither."""
    folder = tmp_path_factory.mktemp("shared")
    with nats_server() as url, asyncio.Runner() as runner:
        consumer = ConsumerProcess(url, folder)
        runner.run(consumer.start())
        try:
            yield url, folder
        finally:
            runner.run(consumer.kill())


@pytest.fixture
def kube(shared_kube: KubeServer) -> Generator[KubeServer]:
    yield shared_kube
    forget_sockets()


@pytest.fixture(scope="session")
def shared_kube(tmp_path_factory: pytest.TempPathFactory) -> Generator[KubeServer]:
    """One API server for the whole run; tests keep apart by namespace. Skips where the programs are not there."""
    with kube_server(tmp_path_factory.mktemp("kube")) as server:
        yield server


@pytest.fixture(scope="session")
def kube_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Generator[KubeStandIn]:
    """The same as far as the driver goes, everywhere."""
    server = KubeStandIn(tmp_path_factory.mktemp("kube-stand-in"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def engine_data_dir() -> Path:
    """Where the tiny model is kept: made once a checkout, because it takes seconds."""
    return Path(__file__).parent.parent / ".penstock"


@pytest.fixture(scope="session")
def vllm_engine(engine_data_dir: Path) -> Generator[EngineInThread]:
    """The one vLLM of the whole run, with a scarce KV cache. Whoever uses it leaves it empty."""
    with running_engine("vllm", engine_data_dir) as engine:
        yield engine
