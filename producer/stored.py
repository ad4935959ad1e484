"""Reads of what the broker keeps: results in bulk, the ready queue, kept replies, and many answers to one request.

The only module of the producer that speaks direct-get: one request for up to 500 results costs the broker 0.6 ms
(measured), so that thousands of waiters may look often.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import nats.errors
from nats.aio.msg import Msg

from infra.broker import Broker, NoSuchStream
from schemas import subjects
from schemas.errors import BusUnavailable
from schemas.result import ErrorDetail, Result, Status, decode_result

_SUBJECTS_A_REQUEST = 500
MESSAGES_A_REQUEST = 500
_ANSWER_BYTES_MAX = 16 * 1024 * 1024
_PATIENCE_S = 5.0


class Found(msgspec.Struct, frozen=True):
    """One message of a stream."""

    subject: str
    seq: int
    data: bytes
    job: str
    ticket: str = ""


async def results(broker: Broker, wanted: Sequence[str]) -> dict[str, Result]:
    """The stored results among the subjects `wanted`.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    found: dict[str, Result] = {}
    for start in range(0, len(wanted), _SUBJECTS_A_REQUEST):
        chunk = wanted[start : start + _SUBJECTS_A_REQUEST]
        query = {"multi_last": list(chunk), "batch": len(chunk), "max_bytes": _ANSWER_BYTES_MAX}
        for message in await _direct_get(broker, subjects.RESULTS_STREAM, query):
            found[message.subject] = readable(message)
    return found


async def messages(broker: Broker, stream: str, subject: str, *, start_seq: int = 1) -> AsyncGenerator[Found]:
    """What `stream` holds on `subject`, oldest first, a few hundred at a time.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    seq = start_seq
    while messages_now := await page(broker, stream, subject, start_seq=seq):
        for message in messages_now:
            yield message
        seq = messages_now[-1].seq + 1


async def page(broker: Broker, stream: str, subject: str, *, start_seq: int) -> list[Found]:
    """The first few hundred messages on `subject` at or after `start_seq`, oldest first.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    query = {"seq": start_seq, "next_by_subj": subject, "batch": MESSAGES_A_REQUEST, "max_bytes": _ANSWER_BYTES_MAX}
    return await _direct_get(broker, stream, query)


async def last_of_each(broker: Broker, stream: str, wildcard: str) -> list[Found]:
    """The last message of every subject that `wildcard` matches (the broker allows 1024 of them)."""
    return await _direct_get(broker, stream, {"multi_last": [wildcard], "max_bytes": _ANSWER_BYTES_MAX})


async def latest(broker: Broker, stream: str, wanted: str, limit: int) -> list[Found]:
    """The newest messages on `wanted`, newest first, found by reading back from the end in growing windows."""
    try:
        last = await broker.last_on(stream, wanted)
    except NoSuchStream:
        # No consumer was ever here.
        return []
    if last is None:
        return []
    window = 2 * limit
    while True:
        start = max(1, last.seq - window + 1)
        found = [message async for message in messages(broker, stream, wanted, start_seq=start)]
        if len(found) >= limit or start == 1:
            return sorted(found, key=lambda message: -message.seq)[:limit]
        window *= 4


def readable(message: Found) -> Result:
    """Even where a stranger stored something else on a result's subject, its waiter must hear of an end."""
    try:
        return decode_result(message.data)
    except msgspec.DecodeError as error:
        _, _, pool, tenant, job = message.subject.split(".")
        detail = ErrorDetail(
            message=f"the stored result is unreadable: {error}", code="bad_result", type="server_error"
        )
        return Result(id=job, status=Status.DEAD, status_code=500, pool=pool, tenant=tenant, error=detail)


async def gathered(broker: Broker, subject: str, payload: bytes, *, within_s: float, enough: int = 0) -> list[bytes]:
    """What answers a request gets within a time, or until there are `enough` (0: never); the broker's own "nobody
    listens" ends the wait at once.
    """
    answers: list[bytes] = []
    over = asyncio.Event()

    async def on_answer(message: Msg) -> None:
        if _status_of(message) == "503":
            over.set()
            return
        answers.append(message.data)
        if len(answers) == enough:
            over.set()

    await _request(broker, subject, payload, on_answer, over, within_s)
    return answers


async def _direct_get(broker: Broker, stream: str, query: Mapping[str, Any]) -> list[Found]:
    found: list[Found] = []
    over = asyncio.Event()

    async def on_message(message: Msg) -> None:
        if _status_of(message):
            over.set()
            return
        headers = message.headers or {}
        found.append(
            Found(
                headers.get("Nats-Subject", ""),
                int(headers.get("Nats-Sequence", "0")),
                message.data,
                headers.get(subjects.HEADER_JOB, ""),
                headers.get(subjects.HEADER_TICKET, ""),
            )
        )

    await _request(broker, f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(query), on_message, over, _PATIENCE_S)
    if not over.is_set():
        raise BusUnavailable(f"the broker did not answer a read of {stream} within {_PATIENCE_S:g} s")
    return found


async def _request(
    broker: Broker,
    subject: str,
    payload: bytes,
    on_message: Callable[[Msg], Awaitable[None]],
    over: asyncio.Event,
    within_s: float,
) -> None:
    try:
        inbox = broker.nc.new_inbox()
        subscription = await broker.subscribe(inbox, on_message)
        try:
            await broker.nc.publish(subject, payload, reply=inbox)
            async with asyncio.timeout(within_s):
                await over.wait()
        except TimeoutError:
            pass
        finally:
            if not broker.nc.is_closed:
                await subscription.unsubscribe()
    except nats.errors.Error as error:
        raise BusUnavailable(f"the broker cannot be asked now: {error}") from error


def _status_of(message: Msg) -> str:
    headers = message.headers
    return headers.get("Status", "") if headers else ""
