"""Streams that are open: what is sent, and what is said while there is nothing to say."""

from __future__ import annotations

import asyncio
from typing import Protocol

from infra import telemetry
from producer.events import Event
from producer.gateway.asgi import Call
from producer.gateway.refusals import Headers, refusal_of, refusal_of_result
from producer.gateway.sse import WAITING, Writer
from schemas.errors import PenstockError
from schemas.frames import Finished
from schemas.result import Result

HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise collect tokens by the kilobyte.
    (b"x-accel-buffering", b"no"),
]


class OpenStream:
    """One. The status waits for the first word about the job, so that a refusal is a refusal and no broken stream."""

    __slots__ = ("_began_s", "_call", "_headers", "_is_sending", "_last_s", "_loop", "_pool", "_writer")

    def __init__(self, call: Call, writer: Writer, *, pool: str, headers: Headers) -> None:
        self._call = call
        self._writer = writer
        self._pool = pool
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._began_s = self._last_s = self._loop.time()
        self._is_sending = False

    @property
    def is_done(self) -> bool:
        return self._writer.is_done

    @property
    def has_started(self) -> bool:
        return self._call.status != 0

    async def show(self, events: list[Event]) -> Result | None:
        """Sends what `events` say. The job's result, once they hold it."""
        last = events[-1]
        result = last.result if isinstance(last, Finished) else None
        data = self._writer.take(events)
        if data:
            if result is not None and not result.is_completed and not self.has_started and not self._writer.events:
                await self._call.refuse(refusal_of_result(result))
            else:
                await self._send(data)
        return result

    async def show_whole(self, result: Result) -> None:
        """All at once: another request's stream has had the tokens."""
        if not result.is_completed and not self.has_started:
            self._writer.is_done = True
            await self._call.refuse(refusal_of_result(result))
        else:
            await self._send(self._writer.whole(result))

    async def fail(self, error: PenstockError) -> None:
        if self.has_started:
            await self._send(self._writer.error(error.message, error.status_code, error.code))
        else:
            self._writer.is_done = True
            await self._call.refuse(refusal_of(error))

    async def say_waiting(self) -> None:
        if not self._writer.is_done:
            await self._send(WAITING)

    def is_silent(self, before_s: float) -> bool:
        return self._last_s < before_s and not self._is_sending

    async def _send(self, data: bytes) -> None:
        self._is_sending = True
        self._last_s = self._loop.time()
        try:
            call = self._call
            if not call.status:
                await call.start(200, [*HEADERS, *self._headers])
                if data is not WAITING:
                    telemetry.GATEWAY_TTFT_SECONDS.labels(self._pool).observe(self._last_s - self._began_s)
            more = not self._writer.is_done or data is WAITING
            await call.send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            self._is_sending = False


class Waiting(Protocol):
    """An open stream of any kind."""

    def is_silent(self, before_s: float) -> bool: ...

    async def say_waiting(self) -> None: ...


class Streams:
    """All of them. One task says for every silent one that it still waits."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._open: set[Waiting] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, stream: Waiting) -> None:
        self._open.add(stream)
        telemetry.GATEWAY_STREAMS.set(len(self._open))

    def remove(self, stream: Waiting) -> None:
        self._open.discard(stream)
        telemetry.GATEWAY_STREAMS.set(len(self._open))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._interval_s / 4))
            before_s = loop.time() - self._interval_s
            for stream in [one for one in self._open if one.is_silent(before_s)]:
                # In a task of its own: one slow reader must not keep the others waiting for their comment.
                task = asyncio.create_task(stream.say_waiting())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
