"""Group commit: many callers who wait for an ack at the same moment share one atomic batch, one fsync.

The decision is a pure function. A caller is never told "stored" before the broker has acknowledged its own message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, Protocol

import msgspec

from infra.broker import Ack, Outgoing
from schemas.errors import BusUnavailable, PenstockError

# Measured on R1 with sync_interval always: one atomic batch beats plain stores from about 32 waiting callers on.
WORTH_A_BATCH = 32
# The broker's own bound on one atomic batch.
BATCH_MAX = 1000
# A batch is staged in the broker's memory until its last message.
BATCH_BYTES_MAX = 8 * 1024 * 1024
# Of one caller: while the broker syncs one, the next is made and sent. It allows 50 a stream, of all clients together.
BATCHES_IN_FLIGHT = 6
# Callers beyond this wait their turn before their message is taken into memory at all.
CALLERS_MAX = 8 * BATCH_MAX


class Commit(msgspec.Struct, frozen=True):
    """What to do with those who wait now, and why."""

    kind: Literal["wait", "single", "batch"]
    count: int
    reason: str


def decide(waiting: int, singles_in_flight: int, is_batch_in_flight: bool) -> Commit:
    if waiting == 0:
        return Commit("wait", 0, "nobody waits")
    if is_batch_in_flight:
        return Commit("wait", 0, "a batch is on its way; the next one takes everybody")
    if waiting + singles_in_flight < WORTH_A_BATCH:
        return Commit("single", waiting, f"below {WORTH_A_BATCH} callers a plain store is faster")
    return Commit("batch", min(waiting, BATCH_MAX), "one fsync for all of them")


class Store(Protocol):
    """What the outbox needs of the broker."""

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str] | None, msg_id: str) -> Ack: ...

    async def store_batch(self, messages: list[Outgoing]) -> Sequence[Ack | PenstockError]: ...


class _Waiting(msgspec.Struct):
    message: Outgoing
    ack: asyncio.Future[Ack]


class Outbox:
    """Where a client's submits and a consumer's results go. `put` returns when the broker has the message on disk."""

    def __init__(self, broker: Store) -> None:
        self._broker = broker
        self._waiting: deque[_Waiting] = deque()
        self._room = asyncio.Semaphore(CALLERS_MAX)
        self._singles = 0
        self._is_batch_in_flight = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_scheduled = False
        self._is_closed = False

    async def put(self, message: Outgoing) -> Ack:
        """
        Raises:
            AlreadyStored: it was to be the first on its subject, and is not.
            NoSuchStream, BodyTooLarge, BusUnavailable: this message was not stored (or, for the last, may not be).
        """
        if self._is_closed:
            raise BusUnavailable("the connection is being closed")
        async with self._room:
            loop = asyncio.get_running_loop()
            waiting = _Waiting(message, loop.create_future())
            self._waiting.append(waiting)
            if not self._is_scheduled:
                # After everybody who is ready in this turn of the loop has joined the queue.
                self._is_scheduled = True
                loop.call_soon(self._commit)
            return await waiting.ack

    async def put_many(self, messages: list[Outgoing]) -> list[Ack | PenstockError]:
        """Stores what one caller brings, a few batches on their way at once."""
        chunks = chunks_of(messages)
        if len(chunks) == 1:
            return list(await self._broker.store_batch(chunks[0]))
        gate = asyncio.Semaphore(BATCHES_IN_FLIGHT)

        async def stored(chunk: list[Outgoing]) -> Sequence[Ack | PenstockError]:
            async with gate:
                return await self._broker.store_batch(chunk)

        parts = await asyncio.gather(*(stored(chunk) for chunk in chunks))
        return [ack for part in parts for ack in part]

    async def close(self) -> None:
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self._waiting:
            if not waiting.ack.done():
                waiting.ack.set_exception(BusUnavailable("the connection was closed before the message was stored"))
        self._waiting.clear()

    def _commit(self) -> None:
        self._is_scheduled = False
        commit = decide(len(self._waiting), self._singles, self._is_batch_in_flight)
        if commit.kind == "single":
            for _ in range(commit.count):
                self._singles += 1
                self._own(self._store_one(self._waiting.popleft()))
        elif commit.kind == "batch":
            self._is_batch_in_flight = True
            self._own(self._store_batch(self._taken(commit.count)))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _taken(self, count: int) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        while self._waiting and len(taken) < count:
            size += len(self._waiting[0].message.payload)
            if taken and size > BATCH_BYTES_MAX:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _store_one(self, waiting: _Waiting) -> None:
        message = waiting.message
        try:
            ack = await self._broker.store(
                message.subject, message.payload, headers=message.headers, msg_id=message.msg_id
            )
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it belongs to the caller that waits
            _settle(waiting, _own_error(error))
        else:
            _settle(waiting, ack)
        finally:
            self._singles -= 1
            self._commit()

    async def _store_batch(self, taken: list[_Waiting]) -> None:
        try:
            acks = await self._broker.store_batch([waiting.message for waiting in taken])
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above, for each of them
            for waiting in taken:
                _settle(waiting, _own_error(error))
        else:
            for waiting, ack in zip(taken, acks, strict=True):
                _settle(waiting, ack)
        finally:
            self._is_batch_in_flight = False
            self._commit()


def chunks_of(messages: list[Outgoing]) -> list[list[Outgoing]]:
    """Cuts so that each part fits one atomic batch."""
    chunks: list[list[Outgoing]] = []
    size = 0
    for message in messages:
        size += len(message.payload)
        if not chunks or len(chunks[-1]) == BATCH_MAX or size > BATCH_BYTES_MAX:
            chunks.append([])
            size = len(message.payload)
        chunks[-1].append(message)
    return chunks


def _own_error(error: BaseException) -> Exception:
    if isinstance(error, asyncio.CancelledError):
        return BusUnavailable("the connection was closed before the broker answered; the message may be stored")
    return error if isinstance(error, Exception) else BusUnavailable(str(error))


def _settle(waiting: _Waiting, outcome: Ack | Exception) -> None:
    if waiting.ack.done():
        return
    if isinstance(outcome, Exception):
        waiting.ack.set_exception(outcome)
    else:
        waiting.ack.set_result(outcome)
