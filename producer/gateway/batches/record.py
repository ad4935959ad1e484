"""What is stored of a file and of a batch, as the gateways' buckets hold it. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.errors import PenstockError
from schemas.openai_batches import ContentError, Status

Ending = Literal["", "completed", "expired", "cancelled"]
# Which of a batch's two files.
Side = Literal["output", "error"]


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """One object of a file, and how long it is."""

    name: str
    size: int


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file is the objects `<prefix>/<segment>` after each other."""

    id: str
    filename: str
    purpose: str
    created_at: int
    prefix: str
    expires_at: int = 0
    segments: list[Segment] = []
    # While it runs, the batch itself knows which segments there are.
    batch: str = ""
    side: Side = "output"
    is_sealed: bool = True

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    def keys(self) -> list[str]:
        return [key_of(self.prefix, segment) for segment in self.segments]


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One batch: what was asked, how far it is, and who runs it. Every change is a compare-and-set on the whole."""

    id: str
    tenant: str
    input_file_id: str
    endpoint: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_expires_after_s: int = 0
    fingerprint: str = ""
    status: Status = "validating"
    in_progress_at: int = 0
    finalizing_at: int = 0
    completed_at: int = 0
    failed_at: int = 0
    expired_at: int = 0
    cancelling_at: int = 0
    cancelled_at: int = 0
    errors: list[ContentError] = []
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""
    # The pool of each model that a line names.
    pools: dict[str, str] = {}
    # Up to where the input is in the queue: lines, and bytes of it.
    poured_lines: int = 0
    poured_bytes: int = 0
    # The number in the results stream from which on answers have not been looked at; 0: no line was submitted.
    cursor: int = 0
    # Of both files, until they are sealed; then the files' own records have them.
    output: list[Segment] = []
    error: list[Segment] = []
    has_output: bool = False
    has_error: bool = False
    # Set when no further answer is taken: what has none by now gets a line that says so.
    ending: Ending = ""
    # The gateway that runs it, and how often that has changed: segments of different runners never share a name.
    runner: str = ""
    turn: int = 0
    # Its event is stored.
    is_told: bool = False
    # By whom and which change: so that a writer whose ack was lost knows its own write.
    change: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    @property
    def is_open(self) -> bool:
        """Something is left to do."""
        return not self.is_over or not self.is_told

    @property
    def answered(self) -> int:
        return self.completed + self.failed


ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class LostBatch(PenstockError):
    """Another gateway runs it now."""

    code = "lost_batch"


def key_of(prefix: str, segment: Segment) -> str:
    return f"{prefix}/{segment.name}"


def file_prefix(file_id: str) -> str:
    return f"files/{file_id}"


def batch_prefix(batch_id: str) -> str:
    return f"batches/{batch_id}"


def side_prefix(batch_id: str, side: Side) -> str:
    return f"{batch_prefix(batch_id)}/{side}"


def side_file_id(batch_id: str, side: Side) -> str:
    """The same whoever runs the batch, so that no takeover leaves a file behind."""
    return f"file-{batch_id.removeprefix('batch_')}{side[0]}"
