from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import topology
from infra.broker import connect
from infra.embedded import EmbeddedServer, discover, find_binary
from schemas import subjects
from schemas.config import BrokerSection, ConsumerSection
from schemas.errors import ConfigError
from schemas.subjects import Lane

CFG = BrokerSection()
PARENT = """
import asyncio, sys
from pathlib import Path
from infra.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    print(await server.start(), server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def started_elsewhere(data_dir: Path) -> tuple[subprocess.Popen[str], str, int]:
    """Another process that runs the broker: the process, the URL, and nats-server's id."""
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url, pid = process.stdout.readline().split()
    process.stdout.close()
    return process, url, int(pid)


def has_ended(watch: int) -> bool:
    """Within five seconds; `watch` is from `os.pidfd_open`."""
    ended, _, _ = select.select([watch], [], [], 5)
    os.close(watch)
    return bool(ended)


def test_the_broker_dies_with_its_parent_even_by_kill_minus_nine(tmp_path: Path) -> None:
    process, _, pid = started_elsewhere(tmp_path)
    watch = os.pidfd_open(pid)

    process.kill()
    process.wait()

    assert has_ended(watch), f"nats-server {pid} outlived its parent"
    with pytest.raises(ConfigError, match="no broker"):
        discover(CFG, tmp_path)


def test_a_second_broker_on_the_same_data_names_who_has_it(tmp_path: Path) -> None:
    process, url, _ = started_elsewhere(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
            asyncio.run(EmbeddedServer(tmp_path).start())
        assert discover(CFG, tmp_path) == url, "the failed start must not take the first one's address away"
    finally:
        process.kill()
        process.wait()


def test_an_orphaned_server_keeps_its_data_locked_until_it_has_ended(tmp_path: Path) -> None:
    process, _, pid = started_elsewhere(tmp_path)
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()

    async def story() -> bool:
        server = EmbeddedServer(tmp_path)
        starting = asyncio.create_task(server.start())
        await asyncio.sleep(0.5)
        is_waiting = not starting.done()
        os.kill(pid, signal.SIGCONT)
        try:
            await starting
        finally:
            await server.stop()
        return is_waiting

    assert asyncio.run(story()), "two servers wrote to the same data"
    assert has_ended(watch)


def test_what_was_acknowledged_is_there_after_kill_minus_nine(tmp_path: Path) -> None:
    subject = subjects.ready("p", Lane.BULK, "t")

    async def story() -> None:
        server = EmbeddedServer(tmp_path)
        url = await server.start()
        broker = await connect(CFG, name="test", url=url)
        await topology.provision_pool(broker, CFG, ConsumerSection(pool="p"))
        for number in range(50):
            await broker.store(subject, str(number).encode())
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait_ended() == -signal.SIGKILL
        try:
            assert await server.start() == url
            for number in range(50):
                message = await broker.message(subjects.ready_stream("p"), number + 1)
                assert message is not None
                assert message.data == str(number).encode()
        finally:
            await broker.close()
            await server.stop()

    asyncio.run(story())


def test_the_port_is_the_old_one_between_runs_unless_somebody_took_it(tmp_path: Path) -> None:
    async def url_of_a_run() -> str:
        server = EmbeddedServer(tmp_path)
        url = await server.start()
        await server.stop()
        return url

    first = asyncio.run(url_of_a_run())
    again = asyncio.run(url_of_a_run())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(first.rpartition(":")[2])))
        other.listen()
        elsewhere = asyncio.run(url_of_a_run())

    assert again == first
    assert elsewhere != first


def test_stopping_leaves_nothing_and_may_be_done_twice(tmp_path: Path) -> None:
    async def story() -> int:
        server = EmbeddedServer(tmp_path)
        await server.start()
        watch = os.pidfd_open(server.pid)
        await server.stop()
        await server.stop()
        assert server.pid == 0
        return watch

    assert has_ended(asyncio.run(story()))
    with pytest.raises(ConfigError, match="no broker"):
        discover(CFG, tmp_path)


def test_a_hung_server_is_stopped_all_the_same(tmp_path: Path) -> None:
    async def story() -> float:
        server = EmbeddedServer(tmp_path)
        await server.start()
        os.kill(server.pid, signal.SIGSTOP)
        begun = asyncio.get_running_loop().time()
        await server.stop()
        return asyncio.get_running_loop().time() - begun

    assert asyncio.run(story()) < 8


def test_only_this_machine_reaches_it(tmp_path: Path) -> None:
    async def story() -> str:
        server = EmbeddedServer(tmp_path)
        await server.start()
        try:
            return (tmp_path / "nats.conf").read_text()
        finally:
            await server.stop()

    config = asyncio.run(story())
    assert "listen: 127.0.0.1:" in config
    assert "sync_interval: always" in config


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho 'storage directory is not writable' >&2\nexit 1\n")
    broken.chmod(0o755)

    with pytest.raises(ConfigError, match="did not come up: storage directory is not writable"):
        asyncio.run(EmbeddedServer(tmp_path / "data", binary=broken).start())


def test_a_folder_with_quotes_and_spaces_is_only_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / 'my "data" $HOME 数据'

    async def story() -> None:
        server = EmbeddedServer(folder)
        await server.start()
        await server.stop()

    asyncio.run(story())

    assert (folder / "jetstream").is_dir()


def test_the_configured_url_wins_over_the_embedded_broker(tmp_path: Path) -> None:
    assert discover(BrokerSection(url="nats://elsewhere:4222"), tmp_path) == "nats://elsewhere:4222"


def test_without_any_broker_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "broker.json").write_text("not json")

    with pytest.raises(ConfigError, match=r"penstock up.*PENSTOCK__BROKER__URL"):
        discover(CFG, tmp_path)


def test_the_packaged_server_is_new_enough() -> None:
    text = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout

    assert tuple(int(part) for part in text.split("v")[-1].split(".")[:2]) >= (2, 12)


def test_an_old_server_on_the_path_is_refused_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.10'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))

    with pytest.raises(ConfigError, match=r"v2\.9\.10, penstock needs 2\.12"):
        find_binary()
