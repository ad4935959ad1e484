"""What a waiting job says of itself in one header, so that whoever orders the backlog never reads a body.

`Penstock-Ticket: 1,<prompt tokens>,<output tokens>,<deadline>,<not before>,<prefix>,<same>,<batch>,<window>`, times in
Unix milliseconds, the two keys in hex, empty for "none". Fields are only ever added at the end.
"""

from __future__ import annotations

import msgspec

from schemas import subjects
from schemas.errors import JobMalformed

_VERSION = "1"
_FIELDS = 9


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Estimates and wishes. A time of 0 means "not set", a key of 0 "none".

    `prompt_tokens` is an estimate from the body's length; `output_tokens_max` what the request asks for at most, 0
    where it does not say. `prefix_key` is the same for jobs whose prompts begin alike; `same_key` for jobs whose
    answers must be the same, so that one may be computed for all. `batch` names what it was submitted with;
    `window` an off-peak window of the dispatcher's configuration.
    """

    prompt_tokens: int = 0
    output_tokens_max: int = 0
    deadline_unix_ms: int = 0
    not_before_unix_ms: int = 0
    prefix_key: int = 0
    same_key: int = 0
    batch: str = ""
    window: str = ""


def header_of(ticket: Ticket) -> str:
    return (
        f"{_VERSION},{ticket.prompt_tokens},{ticket.output_tokens_max},{ticket.deadline_unix_ms or ''},"
        f"{ticket.not_before_unix_ms or ''},{f'{ticket.prefix_key:x}' if ticket.prefix_key else ''},"
        f"{f'{ticket.same_key:x}' if ticket.same_key else ''},{ticket.batch},{ticket.window}"
    )


def ticket_of(header: str) -> Ticket:
    """The inverse of `header_of`; fields that a newer version added are left alone.

    Raises:
        JobMalformed: it is no ticket.
    """
    parts = header.split(",")
    try:
        if len(parts) < _FIELDS:
            raise ValueError(f"{len(parts)} fields, not {_FIELDS}")
        prompt, output, deadline, not_before = (int(part or 0) for part in parts[1:5])
        prefix, same = (int(part or "0", 16) for part in parts[5:7])
        if min(prompt, output, deadline, not_before, prefix, same) < 0:
            raise ValueError("a negative number")
    except ValueError as error:
        raise JobMalformed(f"ticket {header[:80]!r}: {error}", param="ticket") from error
    return Ticket(
        prompt_tokens=prompt,
        output_tokens_max=output,
        deadline_unix_ms=deadline,
        not_before_unix_ms=not_before,
        prefix_key=prefix,
        same_key=same,
        batch=subjects.checked_name(parts[7], "batch") if parts[7] else "",
        window=subjects.checked_name(parts[8], "window") if parts[8] else "",
    )
