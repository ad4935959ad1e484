"""Records as OpenAI's clients read them, and pages of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from producer.gateway.batches.record import BatchRecord, FileRecord, side_file_id
from schemas.errors import JobMalformed
from schemas.openai_batches import PURPOSES, Batch, BatchUsage, ContentErrors, File, RequestCounts

# Longer ones are no ids of ours, and make no answer longer.
_SHOWN = 80


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_HasId)


class Page(NamedTuple):
    """Which part of a list is wanted."""

    limit: int
    after: str = ""
    is_ascending: bool = False


def page_of(query: Mapping[str, str], *, most: int, default: int) -> Page:
    """
    Raises:
        JobMalformed: `limit` or `order` is wrong.
    """
    text = query.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise JobMalformed(f"limit must be 1 to {most}, not {text[:20]!r}", param="limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise JobMalformed(f"order must be asc or desc, not {order[:20]!r}", param="order")
    return Page(int(text), query.get("after", ""), order == "asc")


def purpose_of(query: Mapping[str, str]) -> str:
    """
    Raises:
        JobMalformed: there is no such purpose.
    """
    purpose = query.get("purpose", "")
    return checked_purpose(purpose, (*PURPOSES, "batch_output")) if purpose else ""


def checked_purpose(purpose: str, known: Sequence[str] = PURPOSES) -> str:
    if purpose not in known:
        raise JobMalformed(f"purpose must be one of {', '.join(known)}, not {purpose[:_SHOWN]!r}", param="purpose")
    return purpose


def cut(items: Sequence[Item], page: Page) -> tuple[list[Item], bool]:
    """The part, and whether more follow. Ids begin with the time, so their order is that of creation; and an `after`
    that was deleted meanwhile is still a place.
    """
    ordered = sorted(items, key=lambda item: item.id, reverse=not page.is_ascending)
    if page.after:
        ordered = [item for item in ordered if (item.id > page.after) is page.is_ascending and item.id != page.after]
    return ordered[: page.limit], len(ordered) > page.limit


def file_view(record: FileRecord) -> File:
    return File(
        id=record.id,
        bytes=record.size,
        created_at=record.created_at,
        filename=record.filename,
        purpose=record.purpose,
        expires_at=record.expires_at or None,
    )


def batch_view(record: BatchRecord) -> Batch:
    usage = BatchUsage(
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        total_tokens=record.input_tokens + record.output_tokens,
    )
    return Batch(
        id=record.id,
        endpoint=record.endpoint,
        input_file_id=record.input_file_id,
        completion_window=record.completion_window,
        status=record.status,
        created_at=record.created_at,
        model=record.model or None,
        errors=ContentErrors(data=record.errors) if record.errors else None,
        output_file_id=side_file_id(record.id, "output") if record.has_output else None,
        error_file_id=side_file_id(record.id, "error") if record.has_error else None,
        in_progress_at=record.in_progress_at or None,
        expires_at=record.expires_at,
        finalizing_at=record.finalizing_at or None,
        completed_at=record.completed_at or None,
        failed_at=record.failed_at or None,
        expired_at=record.expired_at or None,
        cancelling_at=record.cancelling_at or None,
        cancelled_at=record.cancelled_at or None,
        request_counts=RequestCounts(total=record.total, completed=record.completed, failed=record.failed),
        usage=usage if record.total else None,
        metadata=record.metadata,
    )
