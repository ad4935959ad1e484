"""What consumers are to a dispatcher, without engines: pulls jobs, stores a result for each, takes them off READY."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from infra.broker import Broker, Outgoing
from infra.result_message import result_message
from schemas import subjects
from schemas.result import Result, Status, Usage
from schemas.subjects import Lane

_ROOM = 512
_BATCH = 256
_WAIT_S = 1.0
_TELEMETRY_S = 0.5
_USAGE = Usage(prompt_tokens=100, completion_tokens=100)


class Drain:
    """`run` until cancelled; `served` counts by tenant, `on_served` is called with tenant and job when it is pulled."""

    def __init__(self, broker: Broker, pool: str, *, on_served: Callable[[str, str], None]) -> None:
        self._broker = broker
        self._pool = pool
        self._on_served = on_served
        self._pulled: asyncio.Queue[Msg] = asyncio.Queue()
        self.served: Counter[str] = Counter()
        self.order: list[str] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(self._finish())
            for lane in Lane:
                group.create_task(self._pull(lane))

    async def _pull(self, lane: Lane) -> None:
        inbox = self._broker.nc.new_inbox()
        is_over = asyncio.Event()
        left = 0

        async def on_message(msg: Msg) -> None:
            nonlocal left
            if msg.headers and msg.headers.get("Status"):
                left = 0
            else:
                left -= 1
                tenant = msg.subject.rpartition(".")[2]
                self.served[tenant] += 1
                self.order.append(tenant)
                self._on_served(tenant, (msg.headers or {}).get(subjects.HEADER_JOB, ""))
                self._pulled.put_nowait(msg)
            if left <= 0:
                is_over.set()

        await self._broker.subscribe(inbox, on_message)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.ready_stream(self._pool)}.{subjects.durable(lane)}"
        request = msgspec.json.encode({"batch": _BATCH, "expires": int(_WAIT_S * 1e9)})
        while True:
            is_over.clear()
            left = _BATCH
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(subject, request, reply=inbox)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _WAIT_S):
                    await is_over.wait()
            while self._pulled.qsize() > _ROOM:
                await asyncio.sleep(0.001)

    async def _finish(self) -> None:
        while True:
            batch = [await self._pulled.get()]
            while not self._pulled.empty() and len(batch) < _BATCH:
                batch.append(self._pulled.get_nowait())
            await self._broker.store_batch([self._result(msg) for msg in batch])
            for msg in batch:
                with contextlib.suppress(NatsError):
                    await self._broker.nc.publish(msg.reply, b"+ACK")

    def _result(self, msg: Msg) -> Outgoing:
        tenant, job = msg.subject.rpartition(".")[2], (msg.headers or {})[subjects.HEADER_JOB]
        result = Result(id=job, status=Status.COMPLETED, status_code=200, pool=self._pool, tenant=tenant, usage=_USAGE)
        return result_message(result)

    async def _tell(self) -> None:
        while True:
            report = {
                "consumer": "drain",
                "jobs": self._pulled.qsize(),
                "pace": {"room": _ROOM},
                "every_s": _TELEMETRY_S,
            }
            with contextlib.suppress(NatsError):
                await self._broker.nc.publish(subjects.telemetry(self._pool, "drain"), msgspec.json.encode(report))
            await asyncio.sleep(_TELEMETRY_S)
