"""How often a job was started and what came of it, and what that means for its next start. No I/O.

JetStream counts every hand-out, also those we gave back unstarted; attempts are judged by what we recorded ourselves.
A start is recorded when the engine gets the job, a fault when the engine died under it.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from schemas.config import ConsumerSection


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job's record in the attempts stream."""

    # Starts that were not handed back.
    started: int = 0
    # Starts under which the engine died.
    faults: int = 0
    # The same, while the job ran alone: nothing else can be to blame.
    faults_alone: int = 0
    reason: str = ""


class Way(Enum):
    """How to run a job next."""

    TOGETHER = auto()
    ALONE = auto()
    NEVER = auto()


_FAULTS_ALONE_MAX = 2


def way_of(history: History, cfg: ConsumerSection) -> Way:
    """The next start of a job with `history`.

    A suspect runs alone so that its neighbours are not charged for it. Starts that simply vanished (the whole consumer
    was killed) weigh less than engine deaths: the machine may be to blame.
    """
    if history.faults_alone >= _FAULTS_ALONE_MAX or history.started >= cfg.attempts_max:
        return Way.NEVER
    if history.faults >= cfg.attempts_shared or history.started >= cfg.attempts_max - 1:
        return Way.ALONE
    return Way.TOGETHER


def after_start(history: History) -> History:
    return msgspec.structs.replace(history, started=history.started + 1)


def after_release(history: History) -> History:
    """Handed back by us: being stopped is not a failed attempt."""
    return msgspec.structs.replace(history, started=max(0, history.started - 1))


def after_fault(history: History, *, alone: bool, reason: str) -> History:
    """The engine died while the job ran."""
    return msgspec.structs.replace(
        history,
        faults=history.faults + 1,
        faults_alone=history.faults_alone + (1 if alone else 0),
        reason=reason,
    )


_decoder = msgspec.json.Decoder(History)
_encoder = msgspec.json.Encoder()


def encode_history(history: History) -> bytes:
    return _encoder.encode(history)


def decode_history(payload: bytes) -> History:
    """The record, or an empty one where it cannot be read: a broken record must not stop a job."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        return History()
