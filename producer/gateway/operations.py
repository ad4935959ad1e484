"""Every route that is described, in one table: what it is called, takes and answers. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.openai import (
    ChatRequest,
    Completion,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    JobList,
    JobRequest,
    JobRequests,
    JobView,
    Model,
    Models,
)
from schemas.openai_batches import Batch, BatchList, BatchRequest, File, FileDeleted, FileList, FileUpload
from schemas.openai_responses import InputItems, ResponseDeleted, ResponseRequest, ResponseView
from schemas.overview import Overview
from schemas.webhook import WebhookDeleted, WebhookEndpoint, WebhookEndpoints, WebhookRequest, WebhookTest


class Operation(NamedTuple):
    """One documented route. `answer` is (status, type, content type)."""

    method: str
    path: str
    summary: str
    request: tuple[Any, ...] = ()
    answer: tuple[str, Any, str] = ("200", None, "application/json")
    has_headers: bool = False
    is_public: bool = False
    takes: str = "application/json"
    # Whether it may be answered with server-sent events.
    is_streamed: bool = False


JSON = "application/json"
BYTES = "application/octet-stream"
TEXT = "text/plain"

# No parameter of its own: whoever tries all that is described would wait for an end that never comes.
_OVERVIEW = "Pools, what waits, who serves; with ?stream=true again each second, without end"

OPERATIONS = (
    Operation("post", "/v1/chat/completions", "Chat", (ChatRequest,), ("200", Completion, JSON), has_headers=True),
    Operation(
        "post", "/v1/completions", "Completion", (CompletionRequest,), ("200", Completion, JSON), has_headers=True
    ),
    Operation("post", "/v1/embeddings", "Embeddings", (EmbeddingRequest,), ("200", Embeddings, JSON), has_headers=True),
    Operation("get", "/v1/models", "What can be asked for", (), ("200", Models, JSON)),
    Operation("get", "/v1/models/{id}", "One model", (), ("200", Model, JSON)),
    Operation("post", "/v1/responses", "Response", (ResponseRequest,), ("200", ResponseView, JSON), has_headers=True),
    Operation(
        "get", "/v1/responses/{id}", "One response, or its stream", (), ("200", ResponseView, JSON), is_streamed=True
    ),
    Operation("delete", "/v1/responses/{id}", "Forget a response", (), ("200", ResponseDeleted, JSON)),
    Operation("post", "/v1/responses/{id}/cancel", "End a background response", (), ("200", ResponseView, JSON)),
    Operation("get", "/v1/responses/{id}/input_items", "What was asked", (), ("200", InputItems, JSON)),
    Operation("post", "/v1/jobs", "Submit one job, or many", (JobRequest, JobRequests), ("202", JobView, JSON)),
    Operation("get", "/v1/jobs", "Your jobs, newest first", (), ("200", JobList, JSON)),
    Operation("get", "/v1/jobs/{id}", "One job, with its answer once it has ended", (), ("200", JobView, JSON)),
    Operation("post", "/v1/jobs/{id}/cancel", "End a job", (), ("200", JobView, JSON)),
    Operation("delete", "/v1/jobs/{id}", "End a job", (), ("200", JobView, JSON)),
    Operation(
        "post",
        "/v1/files",
        "Store a file, such as the input of a batch",
        (FileUpload,),
        ("200", File, JSON),
        takes="multipart/form-data",
    ),
    Operation("get", "/v1/files", "Your files, newest first", (), ("200", FileList, JSON)),
    Operation("get", "/v1/files/{id}", "One file", (), ("200", File, JSON)),
    Operation("delete", "/v1/files/{id}", "Forget a file", (), ("200", FileDeleted, JSON)),
    Operation("get", "/v1/files/{id}/content", "What is in it", (), ("200", str, BYTES)),
    Operation("post", "/v1/batches", "Run a file of requests", (BatchRequest,), ("200", Batch, JSON)),
    Operation("get", "/v1/batches", "Your batches, newest first", (), ("200", BatchList, JSON)),
    Operation("get", "/v1/batches/{id}", "One batch, and how far it is", (), ("200", Batch, JSON)),
    Operation("post", "/v1/batches/{id}/cancel", "End a batch with what it has", (), ("200", Batch, JSON)),
    Operation(
        "post",
        "/v1/webhook_endpoints",
        "Be told of events; the secret is shown this once",
        (WebhookRequest,),
        ("200", WebhookEndpoint, JSON),
    ),
    Operation("get", "/v1/webhook_endpoints", "Your endpoints", (), ("200", WebhookEndpoints, JSON)),
    Operation("get", "/v1/webhook_endpoints/{id}", "One endpoint", (), ("200", WebhookEndpoint, JSON)),
    Operation("delete", "/v1/webhook_endpoints/{id}", "End an endpoint", (), ("200", WebhookDeleted, JSON)),
    Operation(
        "post",
        "/v1/webhook_endpoints/{id}/rotate",
        "A new secret, shown this once; the old one signs beside it for a day",
        (),
        ("200", WebhookEndpoint, JSON),
    ),
    Operation("post", "/v1/webhook_endpoints/{id}/test", "Send a test event now", (), ("200", WebhookTest, JSON)),
    Operation("get", "/v1/overview", _OVERVIEW, (), ("200", Overview, JSON), is_streamed=True),
    Operation("get", "/livez", "The process lives", (), ("200", str, TEXT), is_public=True),
    Operation("get", "/readyz", "Requests have somebody to go to", (), ("200", str, TEXT), is_public=True),
    Operation("get", "/metrics", "Prometheus", (), ("200", str, TEXT), is_public=True),
)
