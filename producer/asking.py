"""Questions to a pool's leading dispatcher. Nobody listens where there is none, and the broker says so at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from infra.broker import Broker
from schemas import subjects
from schemas.dispatch import AnyQuestion, FindJobs, WaitingJob, WaitingJobs
from schemas.errors import BusUnavailable, JobMalformed

Answer = TypeVar("Answer")

# A submit does not wait longer for advice than this.
PATIENCE_S = 0.5
# A cancel that must reach the disk before it is answered.
CANCEL_S = 5.0
# A cancel of half a million jobs, or a change that must reach the disk.
LONG_S = 30.0
# Ids in one question: together well below any broker's limit of a message.
_JOBS_A_QUESTION = 4000


class _Refused(msgspec.Struct):
    """`Refusal`, or an answer that has no such fields."""

    error: str = ""
    param: str = ""


async def ask(
    broker: Broker, pool: str, question: AnyQuestion, answer: type[Answer], *, within_s: float = PATIENCE_S
) -> Answer | None:
    """None: there is no dispatcher now, or it is too busy to say.

    Raises:
        JobMalformed: it does not take the question; its own words.
    """
    try:
        reply = await broker.ask(subjects.control_dispatch(pool), msgspec.json.encode(question), timeout_s=within_s)
        refused = msgspec.json.decode(reply.data, type=_Refused)
        if not refused.error:
            return msgspec.json.decode(reply.data, type=answer)
    except (BusUnavailable, msgspec.DecodeError):
        return None
    raise JobMalformed(refused.error, param=refused.param or None, code="refused_by_dispatcher")


async def must_ask(broker: Broker, pool: str, question: AnyQuestion, answer: type[Answer]) -> Answer:
    """As `ask`, for what only a dispatcher can do.

    Raises:
        BusUnavailable: none answers (code `no_dispatcher`).
    """
    given = await ask(broker, pool, question, answer, within_s=LONG_S)
    if given is None:
        raise BusUnavailable(
            f"no dispatcher answers for pool {pool}: start one: penstock dispatcher", code="no_dispatcher"
        )
    return given


async def find(broker: Broker, pool: str, tenant: str, jobs: Sequence[str]) -> dict[str, WaitingJob] | None:
    """Those of `jobs` that wait or run, by id; None where there is no dispatcher."""
    found: dict[str, WaitingJob] = {}
    for start in range(0, len(jobs), _JOBS_A_QUESTION):
        question = FindJobs(tenant=tenant, jobs=list(jobs[start : start + _JOBS_A_QUESTION]))
        answer = await ask(broker, pool, question, WaitingJobs)
        if answer is None:
            return None
        found.update((one.job, one) for one in answer.jobs)
    return found
