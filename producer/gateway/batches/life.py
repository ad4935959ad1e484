"""How a batch changes, from `validating` to its end. Pure: a record in, a record out, the time passed in.

A cancel is sticky: whoever began or went on with the batch meanwhile finds it asked for, because every change is made
to the record as it is stored, never to the one that somebody remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from producer.gateway.batches.record import BatchRecord, Ending, LostBatch, Segment
from schemas.errors import JobRejected
from schemas.openai_batches import ContentError


class NotCancellable(JobRejected):
    code = "batch_not_cancellable"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner did since its last one. Positions are absolute, counts are more."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    poured_lines: int = 0
    poured_bytes: int = 0
    cursor: int = 0
    output: Segment | None = None
    error: Segment | None = None


def mine(record: BatchRecord, runner: str, turn: int) -> BatchRecord:
    """
    Raises:
        LostBatch: it is another's, so nothing that its former runner still does may count.
    """
    if record.runner != runner or record.turn != turn:
        raise LostBatch(f"batch {record.id} is run by {record.runner or 'nobody'} now")
    return record


def claimed(record: BatchRecord, runner: str, from_runner: str) -> BatchRecord:
    """
    Raises:
        LostBatch: somebody else was faster, or it is done.
    """
    if record.runner != from_runner or not record.is_open:
        raise LostBatch(f"batch {record.id} went to {record.runner or 'nobody'} meanwhile")
    return replace(record, runner=runner, turn=record.turn + 1)


def began(
    record: BatchRecord, *, total: int, pools: Mapping[str, str], model: str, cursor: int, now_s: int
) -> BatchRecord:
    """Its input is in order. `cursor`: where its first answer can be."""
    begun = replace(record, total=total, pools=dict(pools), model=model)
    if record.status != "validating":
        return begun
    return replace(begun, status="in_progress", in_progress_at=now_s, cursor=cursor)


def refused(record: BatchRecord, errors: Sequence[ContentError], now_s: int) -> BatchRecord:
    """Its input is not; a cancel that came before wins."""
    if record.status == "cancelling":
        return replace(record, status="cancelled", cancelled_at=now_s)
    return replace(record, status="failed", failed_at=now_s, errors=list(errors))


def progressed(record: BatchRecord, step: Step) -> BatchRecord:
    return replace(
        record,
        completed=record.completed + step.completed,
        failed=record.failed + step.failed,
        input_tokens=record.input_tokens + step.input_tokens,
        output_tokens=record.output_tokens + step.output_tokens,
        poured_lines=max(record.poured_lines, step.poured_lines),
        poured_bytes=max(record.poured_bytes, step.poured_bytes),
        cursor=max(record.cursor, step.cursor),
        output=[*record.output, step.output] if step.output else record.output,
        error=[*record.error, step.error] if step.error else record.error,
        has_output=record.has_output or step.output is not None,
        has_error=record.has_error or step.error is not None,
    )


def cancel_asked(record: BatchRecord, now_s: int) -> BatchRecord:
    """
    Raises:
        NotCancellable: it has ended otherwise.
    """
    if record.status in ("cancelling", "cancelled"):
        return record
    if record.is_over:
        raise NotCancellable(f"batch {record.id} is {record.status} and cannot be cancelled", param="id")
    if record.ending:
        # All answers are in, and its files are being closed.
        return record
    return replace(record, status="cancelling", cancelling_at=now_s)


def ending_of(record: BatchRecord, *, answered: int, now_s: float, is_cancelling: bool) -> Ending:
    """How it ends if it ends now; empty while it should go on."""
    if record.ending:
        return record.ending
    if is_cancelling:
        return "cancelled"
    if answered >= record.total:
        return "completed"
    return "expired" if now_s >= record.expires_at else ""


def closed(record: BatchRecord, ending: Ending, now_s: int) -> BatchRecord:
    """No further answer is taken: from here on only lines that say so are written."""
    if record.ending:
        return record
    if record.status == "cancelling":
        return replace(record, ending="cancelled")
    return replace(record, ending=ending, status="finalizing", finalizing_at=now_s)


def ended(record: BatchRecord, now_s: int) -> BatchRecord:
    """Its files are sealed."""
    record = replace(record, output=[], error=[])
    if record.ending == "cancelled":
        return replace(record, status="cancelled", cancelled_at=now_s)
    if record.ending == "expired":
        return replace(record, status="expired", expired_at=now_s)
    return replace(record, status="completed", completed_at=now_s)


def ended_at(record: BatchRecord) -> int:
    return max(record.completed_at, record.failed_at, record.expired_at, record.cancelled_at)


def told(record: BatchRecord) -> BatchRecord:
    return replace(record, is_told=True)


def released(record: BatchRecord) -> BatchRecord:
    """Whoever comes first may go on with it."""
    return replace(record, runner="")
