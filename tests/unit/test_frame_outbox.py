from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.errors import OutboundBufferLimitError

from consumer.frame_outbox import FrameOutbox
from schemas.frames import Delta, Event, Finished, Started, decode_frame
from schemas.result import Result, Status


class FakeConnection:
    def __init__(self) -> None:
        self.pending_data_size = 0
        self.frames: list[tuple[str, list[Event]]] = []
        self.error: Exception | None = None
        self.arrived = asyncio.Event()

    async def publish(self, subject: str, payload: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.frames.append((subject, decode_frame(payload)))
        self.arrived.set()


class FakeBroker:
    def __init__(self) -> None:
        self.nc = FakeConnection()
        self.payload_bytes_max = 8 * 1024 * 1024


def delta(seq: int, job: str = "job") -> Delta:
    return Delta(job=job, seq=seq, text=" word")


def finished(seq: int, body_bytes: int = 0) -> Finished:
    body = msgspec.Raw(b'"' + b"x" * body_bytes + b'"')
    result = Result(id="job", status=Status.COMPLETED, status_code=200, pool="p", tenant="t", body=body)
    return Finished(job="job", seq=seq, result=result)


def run(story: Callable[[FakeBroker, FrameOutbox], Awaitable[None]], interval_s: float = 0.0) -> None:
    async def bounded() -> None:
        broker: Any = FakeBroker()
        outbox = FrameOutbox(broker, "pool", interval_s=interval_s)
        sending = asyncio.create_task(outbox.run())
        try:
            async with asyncio.timeout(5):
                await story(broker, outbox)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(bounded())


def test_what_an_engine_step_gives_one_inbox_is_one_frame() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        for job in ("a", "b"):
            outbox.put("inbox.1", delta(5, job))
        outbox.put("inbox.2", delta(5, "c"))
        await broker.nc.arrived.wait()
        await asyncio.sleep(0)

        assert [(subject, len(events)) for subject, events in broker.nc.frames] == [("inbox.1", 2), ("inbox.2", 1)]

    run(story)


def test_later_tokens_wait_for_the_interval_and_first_ones_take_them_along() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        outbox.put("inbox", Started(job="old", seq=0, attempt=1))
        outbox.put("inbox", delta(1, "old"))
        await broker.nc.arrived.wait()
        broker.nc.arrived.clear()

        outbox.put("inbox", delta(2, "old"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(broker.nc.frames) == 1

        outbox.put("inbox", delta(1, "new"))
        await broker.nc.arrived.wait()
        assert [event.job for event in broker.nc.frames[1][1]] == ["old", "new"]

    run(story, interval_s=60.0)


def test_the_end_of_a_job_never_waits() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        outbox.put("inbox", delta(1))
        await broker.nc.arrived.wait()
        broker.nc.arrived.clear()

        outbox.put("inbox", finished(2))
        await broker.nc.arrived.wait()

    run(story, interval_s=60.0)


def test_a_connection_that_does_not_keep_up_loses_frames_and_never_makes_the_engine_wait() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        broker.nc.pending_data_size = 64 * 1024 * 1024
        outbox.put("inbox", delta(1))
        await outbox.send_pending()
        assert broker.nc.frames == []

        broker.nc.pending_data_size = 0
        outbox.put("inbox", delta(2))
        await outbox.send_pending()
        assert [event.seq for event in broker.nc.frames[0][1]] == [2]

    run(story)


def test_a_connection_that_is_away_loses_frames_and_sending_goes_on() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        broker.nc.error = OutboundBufferLimitError()
        outbox.put("inbox", delta(1))
        await outbox.send_pending()

        broker.nc.error = None
        outbox.put("inbox", delta(2))
        await broker.nc.arrived.wait()

    run(story)


def test_results_that_end_together_are_split_below_the_largest_message() -> None:
    async def story(broker: FakeBroker, outbox: FrameOutbox) -> None:
        broker.payload_bytes_max = 10_000
        for seq in range(5):
            outbox.put("inbox", finished(seq, body_bytes=4000))
        await outbox.send_pending()

        assert [event.seq for _, events in broker.nc.frames for event in events] == [0, 1, 2, 3, 4]
        assert len(broker.nc.frames) > 1

    run(story)
