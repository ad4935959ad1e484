"""A message of BACKLOG as it comes off the wire: what the index needs of its subject and header block. Pure."""

from __future__ import annotations

from functools import lru_cache

from schemas import subjects
from schemas.backlog import Ticket, ticket_of
from schemas.errors import JobMalformed
from schemas.subjects import LANES, Lane

_JOB = f"\r\n{subjects.HEADER_JOB}: ".encode()
_TICKET = f"\r\n{subjects.HEADER_TICKET}: ".encode()
_NO_TICKET = Ticket()


@lru_cache(maxsize=65536)
def lane_and_tenant(subject: bytes) -> tuple[Lane, str]:
    """Of `penstock.backlog.<pool>.<lane>.<tenant>`.

    Raises:
        JobMalformed: it is no such subject.
    """
    parts = subject.decode("utf-8", "replace").split(".")
    if len(parts) != 5 or parts[3] not in LANES:
        raise JobMalformed(f"{subject!r} is not {subjects.ROOT}.backlog.<pool>.<lane>.<tenant>", param="subject")
    return Lane(parts[3]), subjects.checked_name(parts[4], "tenant")


def job_and_ticket(headers: bytes, seq: int) -> tuple[str, Ticket]:
    """One without a ticket, or with a broken one, waits with none; one without an id is known by its number."""
    job, text = _value(headers, _JOB) or f"seq-{seq}", _value(headers, _TICKET)
    if not text:
        return job, _NO_TICKET
    try:
        return job, ticket_of(text)
    except JobMalformed:
        return job, _NO_TICKET


def _value(headers: bytes, name: bytes) -> str:
    _, found, rest = headers.partition(name)
    return rest[: rest.find(b"\r\n")].decode("utf-8", "replace") if found else ""
