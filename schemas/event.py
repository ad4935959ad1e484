"""What happened to a batch or a response, as it is stored on `penstock.events.<tenant>.<kind>` and sent to webhooks.

The payload is OpenAI's: `{"id": "evt_…", "object": "event", "created_at": …, "type": "batch.completed",
"data": {"id": "batch_…"}}`. The event's id follows from the object and the kind, so that whoever tells it twice (a
gateway that was killed, and the one that took over) tells the same event.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# OpenAI's names.
KINDS = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The batch or response."""

    id: str


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """`created_at` in Unix seconds."""

    id: str
    type: str
    created_at: int
    data: Subject
    object: Literal["event"] = "event"


def event_of(kind: str, subject_id: str, created_at: int) -> EventMessage:
    return EventMessage(
        id=f"evt_{subject_id}_{kind.replace('.', '_')}", type=kind, created_at=created_at, data=Subject(id=subject_id)
    )
