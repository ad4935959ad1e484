from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from infra import telemetry
from infra.health import HealthServer


@asynccontextmanager
async def served(reason: str = "") -> AsyncGenerator[int]:
    server = HealthServer("127.0.0.1", 0, ready=lambda: reason)
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()
        await server.stop()


async def answer_to(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(3):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def get(path: str, *, reason: str = "", method: str = "GET") -> bytes:
    async def ask() -> bytes:
        async with served(reason) as port:
            return await answer_to(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    return asyncio.run(ask())


def test_a_ready_process_says_so() -> None:
    assert get("/readyz").startswith(b"HTTP/1.1 200 ")


def test_a_process_that_is_not_ready_says_why() -> None:
    answer = get("/readyz", reason="the engine is starting")

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the engine is starting\n")


def test_a_draining_process_still_lives() -> None:
    assert get("/livez", reason="draining").startswith(b"HTTP/1.1 200 ")


def test_metrics_hold_every_name_we_list() -> None:
    telemetry.JOBS.labels("p", "bulk", "completed").inc(0)

    answer = get("/metrics").decode()

    assert 'penstock_jobs_total{lane="bulk",pool="p",verdict="completed"}' in answer
    assert "penstock_broker_reconnects_total" in answer


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", b"404"), ("/livez?x=1", "GET", b"200"), ("/livez", "POST", b"405")]
)
def test_other_requests_are_told_apart(path: str, method: str, status: bytes) -> None:
    assert get(path, method=method).split()[1] == status


def test_head_gets_the_length_and_no_body() -> None:
    answer = get("/livez", method="HEAD")

    assert b"Content-Length: 3" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_request_without_end_is_cut_off_and_others_are_served() -> None:
    async def both() -> bytes:
        async with served() as port:
            endless = b"GET /" + b"x" * 20_000
            assert await answer_to(port, endless) == b""
            return await answer_to(port, b"GET /livez HTTP/1.1\r\n\r\n")

    assert asyncio.run(both()).startswith(b"HTTP/1.1 200 ")


def test_a_check_that_fails_is_not_ready_rather_than_silent() -> None:
    async def ask() -> bytes:
        def broken() -> str:
            raise RuntimeError("no such thing")

        server = HealthServer("127.0.0.1", 0, ready=broken)
        try:
            return await answer_to(await server.start(), b"GET /readyz HTTP/1.1\r\n\r\n")
        finally:
            await server.stop()

    assert b"RuntimeError" in asyncio.run(ask())
