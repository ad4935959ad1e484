"""What a waiting job says of itself in one header, so that whoever orders the backlog never reads a body.

`Penstock-Ticket: 1,<prompt tokens>,<output tokens>,<deadline>,<not before>,<prefix>,<same>,<batch>,<window>`, times in
Unix milliseconds, the two keys in hex, empty for "none". Fields are only ever added at the end.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from schemas import subjects
from schemas.errors import JobMalformed

_VERSION = "1"

# What is larger is cut to these, so that whoever orders the backlog can keep them in 32 and 64 bits.
TOKENS_MAX = 2**31 - 1
TIME_MAX = 2**62
KEY_MAX = 2**64 - 1


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


# Every waiting job passes here when a dispatcher starts, and many of a batch say the same; hence also no loop over the
# fields.
@lru_cache(maxsize=8192)
def ticket_of(header: str) -> Ticket:
    """The inverse of `header_of`; fields that a newer version added are left alone.

    Raises:
        JobMalformed: it is no ticket.
    """
    try:
        _, prompt, output, deadline, not_before, prefix, same, batch, window, *_ = header.split(",")
        ticket = Ticket(
            prompt_tokens=min(int(prompt or 0), TOKENS_MAX),
            output_tokens_max=min(int(output or 0), TOKENS_MAX),
            deadline_unix_ms=min(int(deadline or 0), TIME_MAX),
            not_before_unix_ms=min(int(not_before or 0), TIME_MAX),
            prefix_key=min(int(prefix or "0", 16), KEY_MAX),
            same_key=min(int(same or "0", 16), KEY_MAX),
            batch=_checked_name(batch, "batch") if batch else "",
            window=_checked_name(window, "window") if window else "",
        )
    except ValueError as error:
        raise JobMalformed(f"ticket {header[:80]!r}: {error}", param="ticket") from error
    if "-" in header and _is_negative(ticket):
        raise JobMalformed(f"ticket {header[:80]!r}: a negative number", param="ticket")
    return ticket


# A batch has many jobs.
_checked_name = lru_cache(maxsize=4096)(subjects.checked_name)


def _is_negative(ticket: Ticket) -> bool:
    numbers = (
        ticket.prompt_tokens,
        ticket.output_tokens_max,
        ticket.deadline_unix_ms,
        ticket.not_before_unix_ms,
        ticket.prefix_key,
        ticket.same_key,
    )
    return min(numbers) < 0
