"""What a client meets where a dispatcher leads: answers that the test chooses, and jobs moved when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import msgspec
from nats.aio.msg import Msg

from infra import topology
from infra.broker import Broker, connect
from infra.messages import StoredMessage
from schemas import subjects
from schemas.config import BrokerSection
from schemas.dispatch import AnyQuestion, Cancelled, Look, Snapshot
from schemas.subjects import Lane

Answer = Callable[[Any], Any]


class StandInDispatcher:
    """`async with StandInDispatcher(url) as dispatcher`: BACKLOG exists, and who asks is answered."""

    def __init__(self, url: str, *, pool: str = "default", **answers: Answer) -> None:
        self._url = url
        self._pool = pool
        # By the question's tag: quote, find, list, cancel, change, look.
        self.answers: dict[str, Answer] = {"look": self._look, "cancel": lambda _: Cancelled(jobs=0), **answers}
        self.asked: list[AnyQuestion] = []
        self.broker: Broker

    async def __aenter__(self) -> Self:
        self.broker = await connect(BrokerSection(), name="stand-in", url=self._url)
        await topology.provision_backlog(self.broker, BrokerSection(), self._pool)
        await self.broker.subscribe(subjects.control_dispatch(self._pool), self._on_question)
        await self.broker.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.close()

    def questions(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.asked if isinstance(one, kind)]

    async def waiting(self) -> list[StoredMessage]:
        """What BACKLOG holds, oldest first."""
        found: list[StoredMessage] = []
        seq = 1
        stream = subjects.backlog_stream(self._pool)
        while message := await self.broker.next_after(stream, seq):
            found.append(message)
            seq = message.seq + 1
        return found

    async def move_all(self) -> int:
        """As a dispatcher does: to READY with the same id, then out of BACKLOG."""
        waiting = await self.waiting()
        for message in waiting:
            _, _, pool, lane, tenant = message.subject.split(".")
            job = message.headers[subjects.HEADER_JOB]
            headers = {name: message.headers[name] for name in (subjects.HEADER_JOB, subjects.HEADER_VERSION)}
            headers[subjects.HEADER_TICKET] = message.headers[subjects.HEADER_TICKET]
            await self.broker.store(subjects.ready(pool, Lane(lane), tenant), message.data, headers=headers, msg_id=job)
            await self.broker.delete(subjects.backlog_stream(pool), message.seq)
        return len(waiting)

    async def tell(self, snapshot: Snapshot) -> None:
        await self.broker.nc.publish(subjects.snapshot(self._pool), msgspec.json.encode(snapshot))
        await self.broker.flush()

    async def _on_question(self, message: Msg) -> None:
        question = msgspec.json.decode(message.data, type=AnyQuestion)
        self.asked.append(question)
        answer = self.answers.get(type(question).__struct_config__.tag or "")
        if answer is not None:
            await self.broker.nc.publish(message.reply, msgspec.json.encode(answer(question)))

    def _look(self, _: Look) -> Snapshot:
        return Snapshot(pool=self._pool, dispatcher="stand-in", unix_ms=1)
