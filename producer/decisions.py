"""Reads what scalers decided, newest or at a time, and what a person asked for instead; and asks for it."""

from __future__ import annotations

import msgspec

from infra.broker import Broker, NoSuchStream, StoredMessage
from schemas import subjects
from schemas.decision import Decision
from schemas.errors import ConfigError
from schemas.override import Override

# One is told each minute at least; before a gap, the search goes back by these.
_BACK_MS = tuple(1000 * seconds for seconds in (90, 900, 4 * 3600, 2 * 86400, 31 * 86400))
_CLOSE_MS = 100


async def latest(broker: Broker, pool: str) -> Decision | None:
    """
    Raises:
        ConfigError: no scaler has ever run here.
        BusUnavailable: the broker does not answer.
    """
    try:
        message = await broker.last_on(subjects.DECISIONS_STREAM, subjects.decisions(pool))
    except NoSuchStream as error:
        raise _no_scaler() from error
    return _read(message)


async def at(broker: Broker, pool: str, unix_ms: int) -> Decision | None:
    """The last one before that time; None where none is kept. Raises as `latest`."""
    try:
        for back_ms in _BACK_MS:
            first = await _since(broker, pool, unix_ms - back_ms)
            if first is not None and first.unix_ms <= unix_ms:
                return _read(await _last_before(broker, pool, first, unix_ms))
    except NoSuchStream as error:
        raise _no_scaler() from error
    return None


async def since(broker: Broker, pool: str, unix_ms: int, limit: int) -> list[Decision]:
    """The first so many from that time on. Raises as `latest`."""
    found: list[Decision] = []
    try:
        message = await _since(broker, pool, unix_ms)
        while message is not None and len(found) < limit:
            if (decision := _read(message)) is not None:
                found.append(decision)
            message = await broker.next_after(subjects.DECISIONS_STREAM, message.seq + 1, subjects.decisions(pool))
    except NoSuchStream as error:
        raise _no_scaler() from error
    return found


async def override(broker: Broker, pool: str) -> Override:
    """What a person last asked for, over or not. Raises as `latest`."""
    try:
        message = await broker.last_on(subjects.SCALER_STREAM, subjects.scaler_override(pool))
    except NoSuchStream as error:
        raise _no_scaler() from error
    return msgspec.json.decode(message.data, type=Override) if message else Override()


async def ask_for(broker: Broker, pool: str, override: Override) -> None:
    """Raises as `latest`; BusUnavailable: it is not certain that it was heard."""
    try:
        await broker.store(subjects.scaler_override(pool), msgspec.json.encode(override))
    except NoSuchStream as error:
        raise _no_scaler() from error


async def _last_before(broker: Broker, pool: str, first: StoredMessage, unix_ms: int) -> StoredMessage:
    """By halving the time between `first` and then."""
    low_ms, high_ms, found = first.unix_ms, unix_ms, first
    while high_ms - low_ms > _CLOSE_MS:
        middle_ms = (low_ms + high_ms) // 2
        message = await _since(broker, pool, middle_ms)
        if message is not None and message.unix_ms <= unix_ms:
            low_ms, found = max(middle_ms, message.unix_ms), message
        else:
            high_ms = middle_ms
    return found


async def _since(broker: Broker, pool: str, unix_ms: int) -> StoredMessage | None:
    return await broker.first_since(subjects.DECISIONS_STREAM, unix_ms, subjects.decisions(pool))


def _read(message: StoredMessage | None) -> Decision | None:
    return msgspec.json.decode(message.data, type=Decision) if message else None


def _no_scaler() -> ConfigError:
    return ConfigError("no scaler has run here yet: start one with `penstock scaler` or `penstock up --scale`")
