"""Answers control requests: cancel a job, list the jobs held here. Remembers cancels of jobs not seen yet."""

from __future__ import annotations

import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from consumer.engine.port import Capacity
from consumer.running import Held, HeldJobs, key_of
from infra.broker import Broker
from schemas import subjects
from schemas.errors import JobCancelled

log = logging.getLogger(__name__)

# Cancels of jobs that may still be pulled; a job older than what we remember is looked up in the results instead.
_REMEMBERED = 100_000
# Between the servers of one cluster, and the second we round away.
_CLOCKS_DIFFER_MS = 3_000


class _CancelRequest(msgspec.Struct):
    job: str
    tenant: str


class Control:
    """`start` subscribes; `was_cancelled` is asked before a job starts."""

    def __init__(
        self,
        broker: Broker,
        *,
        pool: str,
        name: str,
        models: tuple[str, ...],
        held: HeldJobs,
        capacity: Callable[[], Capacity],
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._name = name
        self._models = models
        self._held = held
        self._capacity = capacity
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._listening_since_ms: int | None = None
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        handlers: dict[str, Callable[[Msg], Awaitable[None]]] = {
            subjects.control_cancel(self._pool): self._on_cancel,
            subjects.control_jobs(self._pool): self._on_jobs,
        }
        for subject, handler in handlers.items():
            self._subscriptions.append(await self._broker.subscribe(subject, handler))
        await self.note_listening()

    async def note_listening(self) -> None:
        """Asks the broker its time, unless we know since when we have heard every cancel."""
        if self._listening_since_ms is not None:
            return
        await self._broker.flush()
        info = await self._broker.api(f"STREAM.INFO.{subjects.ready_stream(self._pool)}")
        now = dt.datetime.fromisoformat(info["ts"][:19]).replace(tzinfo=dt.UTC)
        self._listening_since_ms = int(now.timestamp() * 1000) + _CLOCKS_DIFFER_MS

    def missed_some(self) -> None:
        """We were not listening for a while: what is queued may have been cancelled unheard."""
        self._listening_since_ms = None

    def may_have_missed(self, stored_unix_ms: int) -> bool:
        """Whether a job stored then, by the broker's clock, could have been cancelled without our hearing it."""
        return self._listening_since_ms is None or stored_unix_ms < self._listening_since_ms

    def was_cancelled(self, tenant: str, job_id: str) -> bool:
        return key_of(tenant, job_id) in self._cancelled

    async def _on_cancel(self, msg: Msg) -> None:
        try:
            request = msgspec.json.decode(msg.data, type=_CancelRequest)
        except msgspec.DecodeError as error:
            await self._respond(msg, {"error": str(error)})
            return
        self._cancelled[key_of(request.tenant, request.job)] = None
        if len(self._cancelled) > _REMEMBERED:
            self._cancelled.popitem(last=False)
            self.missed_some()
        held = self._held.find(request.tenant, request.job)
        if held is None:
            return
        held.stop(JobCancelled("cancelled on request"))
        log.info("job.cancelling", extra={"job_id": request.job, "tenant": request.tenant})
        await self._respond(msg, {"consumer": self._name})

    async def _on_jobs(self, msg: Msg) -> None:
        running = [_described(held) for held in self._held if held.is_admitted]
        waiting = [_described(held) for held in self._held if not held.is_admitted]
        answer = {
            "consumer": self._name,
            "pool": self._pool,
            "models": list(self._models),
            "running": running,
            "waiting": waiting,
            "capacity": msgspec.to_builtins(self._capacity()),
        }
        await self._respond(msg, answer)

    async def _respond(self, msg: Msg, answer: dict[str, Any]) -> None:
        if not msg.reply:
            return
        try:
            await self._broker.nc.publish(msg.reply, msgspec.json.encode(answer))
        except NatsError as error:
            log.debug("control.unanswered", extra={"error": repr(error)})


def _described(held: Held) -> dict[str, Any]:
    progress = held.progress
    return {
        "job": held.job.id,
        "tenant": held.tenant,
        "lane": held.lane.value,
        "custom_id": held.job.custom_id,
        "attempt": held.history.started,
        "prompt_tokens": progress.prompt_tokens,
        "tokens": progress.tokens,
        "submitted_unix_ms": held.job.submitted_unix_ms,
        "started_unix_ms": progress.admitted_unix_ms,
    }
