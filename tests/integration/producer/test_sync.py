from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producer.sync import SyncClient
from schemas.config import Config
from schemas.errors import BusUnavailable, JobMalformed, ResultPending
from schemas.frames import Delta
from tests.support.broker import TestBroker
from tests.support.echo_consumer import EchoConsumer


@contextmanager
def served(tmp_path: Path) -> Generator[str]:
    """A broker and a consumer in another thread, as they would be in another process."""
    ready = threading.Event()
    url: list[str] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with TestBroker(tmp_path) as broker, EchoConsumer(broker.url):
            over = asyncio.Event()
            stop.append((asyncio.get_running_loop(), over))
            url.append(broker.url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield url[0]
    finally:
        stop[0][0].call_soon_threadsafe(stop[0][1].set)
        thread.join()


def test_every_verb_works_without_a_loop_of_ones_own(tmp_path: Path) -> None:
    with served(tmp_path) as url, SyncClient(url, config=Config()) as client:
        handle = client.submit({"prompt": "one two"}, endpoint="/v1/completions")
        assert handle.result(10).is_completed
        assert "".join(client.stream({"prompt": "one two"}).text()) == "one two "
        events = list(client.submit({"prompt": "a b c"}).stream())
        assert sum(isinstance(event, Delta) for event in events) == 3
        results = list(client.map([{"prompt": f"p {n}"} for n in range(20)], concurrency=4))
        assert len(results) == 20
        assert [one.id for one in client.submit_many([{"prompt": "x"}] * 3)]
        slow = client.submit({"prompt": "a b c d", "pause_s": 5})
        with pytest.raises(ResultPending):
            client.result(slow, 0.1)
        assert client.cancel(slow).status == "cancelled"
        assert len(client.jobs()) > 20
        assert client.pools()[0].pool == "default"
        with pytest.raises(JobMalformed):
            client.submit({"prompt": "x"}, lane="no")

    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-client"]


def test_it_works_inside_a_running_loop_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell(url: str) -> str:
        with SyncClient(url, config=Config()) as client:
            return "".join(client.stream({"prompt": "one"}).text())

    with served(tmp_path) as url:
        assert asyncio.run(cell(url)) == "one "


def test_a_failed_connect_leaves_no_thread_behind() -> None:
    with pytest.raises(BusUnavailable):
        SyncClient("nats://127.0.0.1:1", config=Config()).open()

    assert not [thread for thread in threading.enumerate() if thread.name == "penstock-client"]


def test_leaving_a_stream_early_is_fine(tmp_path: Path) -> None:
    with served(tmp_path) as url, SyncClient(url, config=Config()) as client:
        for text in client.stream({"prompt": "a b c d e", "pause_s": 0.1}).text():
            assert text == "a "
            break
        assert client.submit({"prompt": "x"}).result(10).is_completed
