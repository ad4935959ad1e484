"""Hears and asks about one pool: telemetry, snapshots, and the broker's own counts. Decides nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from infra.broker import Broker, StoredMessage
from scaler.live.reports import Report, Reports
from scaler.live.seen import InReady, ReadyLane
from schemas import subjects
from schemas.backlog import ticket_of
from schemas.dispatch import Snapshot
from schemas.errors import BusUnavailable, JobMalformed
from schemas.subjects import Lane

log = logging.getLogger(__name__)

# Jobs of READY that are looked at one by one while nobody is there to pull them: a dispatcher moves 16 ahead.
_LOOKED_AT_MOST = 32
_ASK_S = 0.5
_LOOK = b'{"ask":"look"}'

_report_decoder = msgspec.json.Decoder(Report)
_snapshot_decoder = msgspec.json.Decoder(Snapshot)


class _JobHead(msgspec.Struct):
    deadline_unix_ms: int = 0


_job_decoder = msgspec.json.Decoder(_JobHead)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """As the leader of the broker's API counts."""

    unix_s: float = 0.0
    lanes: dict[str, ReadyLane] = {}
    backlog_jobs: int = 0

    @property
    def ready_jobs(self) -> int:
        return sum(lane.pending + lane.in_flight for lane in self.lanes.values())

    @property
    def jobs(self) -> int:
        return self.backlog_jobs + self.ready_jobs


class Ears:
    """`start` subscribes, `stop` ends that. Times are the wall clock's, as heard here."""

    def __init__(
        self, broker: Broker, pool: str, *, now_s: Callable[[], float], on_new_consumer: Callable[[], None]
    ) -> None:
        self._broker = broker
        self._pool = pool
        self._now_s = now_s
        self._on_new_consumer = on_new_consumer
        self.reports = Reports()
        self.snapshot: Snapshot | None = None
        self.snapshot_unix_s = 0.0
        self.counts = Counts()
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        for subject, handler in (
            (subjects.telemetry_of_pool(self._pool), self._on_telemetry),
            (subjects.snapshot(self._pool), self._on_snapshot),
        ):
            self._subscriptions.append(await self._broker.subscribe(subject, handler))

    async def stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            if not self._broker.nc.is_closed:
                with contextlib.suppress(NatsError):
                    await subscription.unsubscribe()

    @property
    def known_jobs(self) -> int:
        """In READY, and what the dispatcher has read of BACKLOG."""
        told = self.snapshot if self.counts.backlog_jobs else None
        return self.counts.ready_jobs + (told.held.jobs + sum(one.jobs for one in told.lanes.values()) if told else 0)

    async def count(self) -> bool:
        """Asks the broker anew; False where the pool does not exist.

        Raises:
            BusUnavailable: it does not answer; the earlier counts stay.
        """
        ready = subjects.ready_stream(self._pool)
        backlog = subjects.backlog_stream(self._pool)
        questions = [(f"$JS.API.CONSUMER.INFO.{ready}.{subjects.durable(lane)}", b"") for lane in Lane]
        questions.append((f"$JS.API.STREAM.INFO.{backlog}", b""))
        asked_s = self._now_s()
        answers: list[dict[str, Any]] = []
        for reply in await self._broker.ask_many(questions):
            with contextlib.suppress(msgspec.DecodeError):
                answers.append(msgspec.json.decode(reply.data, type=dict[str, Any]))
        if len(answers) < len(questions) or any(_is_refused(answer) for answer in answers):
            raise BusUnavailable(f"the broker does not say what waits in pool {self._pool}")
        *lanes, waiting = answers
        if any("error" in answer for answer in lanes):
            return False
        state: dict[str, Any] = waiting.get("state") or {}
        self.counts = Counts(
            unix_s=asked_s,
            lanes={
                lane.value: ReadyLane(pending=answer.get("num_pending", 0), in_flight=answer.get("num_ack_pending", 0))
                for lane, answer in zip(Lane, lanes, strict=True)
            },
            backlog_jobs=int(state.get("messages", 0)),
        )
        return True

    async def ask_dispatcher(self) -> None:
        """What waits now, not as of its last second; where none answers, that stands."""
        with contextlib.suppress(BusUnavailable):
            message = await self._broker.ask(subjects.control_dispatch(self._pool), _LOOK, timeout_s=_ASK_S)
            await self._on_snapshot(message)

    async def first_in_ready(self) -> list[InReady]:
        """The jobs at the head of READY, by their headers.

        Raises:
            BusUnavailable: the broker does not answer.
        """
        found: list[InReady] = []
        stream, seq = subjects.ready_stream(self._pool), 1
        while len(found) < _LOOKED_AT_MOST:
            message = await self._broker.next_after(stream, seq, subjects.ready_of_pool(self._pool))
            if message is None:
                break
            seq = message.seq + 1
            with contextlib.suppress(JobMalformed, msgspec.DecodeError):
                found.append(_described(message))
        return found

    async def _on_telemetry(self, msg: Msg) -> None:
        try:
            report = _report_decoder.decode(msg.data)
        except msgspec.DecodeError as error:
            log.debug("telemetry.unreadable", extra={"subject": msg.subject, "error": str(error)})
            return
        if self.reports.note(report, self._now_s()):
            self._on_new_consumer()

    async def _on_snapshot(self, msg: Msg) -> None:
        try:
            self.snapshot = _snapshot_decoder.decode(msg.data)
        except msgspec.DecodeError as error:
            log.debug("snapshot.unreadable", extra={"error": str(error)})
        else:
            self.snapshot_unix_s = self._now_s()


def _described(message: StoredMessage) -> InReady:
    """From its ticket; what came without a dispatcher has none, and says its deadline itself."""
    lane = subjects.parse_ready(message.subject).lane.value
    header = message.headers.get(subjects.HEADER_TICKET, "")
    if not header:
        return InReady(lane=lane, deadline_unix_ms=_job_decoder.decode(message.data).deadline_unix_ms)
    ticket = ticket_of(header)
    return InReady(
        lane=lane,
        prompt_tokens=ticket.prompt_tokens,
        output_tokens_max=ticket.output_tokens_max,
        deadline_unix_ms=ticket.deadline_unix_ms,
    )


def _is_refused(answer: dict[str, Any]) -> bool:
    """Neither an answer nor "there is no such thing"."""
    error: dict[str, Any] = answer.get("error") or {}
    return bool(error) and error.get("code") != 404
