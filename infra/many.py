"""Reads and deletes of many messages at once: the requests are pipelined, and one task waits for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import nats.errors

from infra.broker import Broker
from infra.messages import StoredMessage, stored_of
from schemas.errors import BusUnavailable

# More in flight fill the broker's queue of API requests, and win nothing.
_AT_ONCE = 500


class _Deleted(msgspec.Struct):
    success: bool = False
    error: dict[str, object] | None = None


_deleted_decoder = msgspec.json.Decoder(_Deleted)


async def get_many(broker: Broker, stream: str, seqs: Sequence[int]) -> dict[int, StoredMessage]:
    """Those of messages `seqs` that are there, by number.

    Raises:
        BusUnavailable: the broker did not answer.
    """
    found: dict[int, StoredMessage] = {}
    subject = f"$JS.API.DIRECT.GET.{stream}"
    for start in range(0, len(seqs), _AT_ONCE):
        questions = [(subject, b'{"seq":%d}' % seq) for seq in seqs[start : start + _AT_ONCE]]
        for reply in await broker.ask_many(questions):
            try:
                message = stored_of(reply.data, reply.headers or {})
            except nats.errors.Error as error:
                raise BusUnavailable(f"a read of {stream} was refused: {error}") from error
            if message is not None:
                found[message.seq] = message
    return found


async def delete_many(broker: Broker, stream: str, seqs: Sequence[int]) -> int:
    """Takes messages `seqs` out of `stream`; how many were there.

    Raises:
        BusUnavailable: the broker did not answer; some may be gone.
    """
    gone = 0
    subject = f"$JS.API.STREAM.MSG.DELETE.{stream}"
    for start in range(0, len(seqs), _AT_ONCE):
        questions = [(subject, b'{"seq":%d,"no_erase":true}' % seq) for seq in seqs[start : start + _AT_ONCE]]
        for reply in await broker.ask_many(questions):
            try:
                gone += _deleted_decoder.decode(reply.data).success
            except msgspec.DecodeError as error:
                raise BusUnavailable(f"a delete in {stream} was answered with {reply.data[:80]!r}") from error
    return gone
