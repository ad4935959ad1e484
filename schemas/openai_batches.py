"""OpenAI's files and batches, as clients send and read them. Times are Unix seconds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")

METADATA_PAIRS_MAX = 16
Metadata = dict[
    Annotated[str, msgspec.Meta(max_length=64)],
    Annotated[str, msgspec.Meta(max_length=512)],
]


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    """`anchor` is when the file was made."""

    seconds: Annotated[int, msgspec.Meta(ge=3600, le=2_592_000)]
    anchor: Literal["created_at"] = "created_at"


class FileUpload(msgspec.Struct, frozen=True, kw_only=True):
    """The form of POST /v1/files."""

    file: Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]
    purpose: Literal["batch", "assistants", "fine-tune", "vision", "user_data", "evals"]
    expires_after: ExpiresAfter | msgspec.UnsetType = msgspec.UNSET


class File(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    status: Literal["processed"] = "processed"
    status_details: None = None
    object: Literal["file"] = "file"


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    data: list[File]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
    object: Literal["list"] = "list"


class FileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    deleted: bool = True
    object: Literal["file"] = "file"


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/batches. `completion_window`: `24h`, or any other time up to what results are kept for."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Annotated[Metadata, msgspec.Meta(max_length=METADATA_PAIRS_MAX)] | None = None
    output_expires_after: ExpiresAfter | None = None


class ContentError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the input; `line` from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class ContentErrors(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ContentError]
    object: Literal["list"] = "list"


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class CachedTokens(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int = 0


class ReasoningTokens(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens_details: ReasoningTokens = ReasoningTokens()


Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_at: int
    model: str | None = None
    errors: ContentErrors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None
    object: Literal["batch"] = "batch"


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
    object: Literal["list"] = "list"
