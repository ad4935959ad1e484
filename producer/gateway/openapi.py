"""`/openapi.json`, made of the very types that the gateway reads and writes, and a page that shows it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

import msgspec

from producer.gateway.openapi_queries import queries_of
from schemas.openai import (
    ChatRequest,
    Completion,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    ErrorBody,
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

_REF = "#/components/schemas/{name}"
_ERRORS = {
    "400": "A field is wrong; `param` names it.",
    "401": "No API key, or one that does not hold.",
    "403": "A web page that may not call.",
    "404": "No such model, pool or job of yours.",
    "408": "The deadline passed.",
    "409": "It is in use.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "The idempotency key was used for something else.",
    "429": "A limit is reached; `retry-after` says when to come back.",
    "500": "The job killed its engine, or the gateway is at fault.",
    "503": "The pool or the broker is away; `retry-after` says when to come back.",
    "504": "It took too long.",
}
_HEADERS = {
    "Idempotency-Key": "The same key gets the same job, and the same answer.",
    "X-Penstock-Lane": "interactive, standard or bulk; wins over service_tier.",
    "X-Penstock-Deadline": "Seconds from now (30, 90s, 2h) or an RFC 3339 time.",
    "X-Penstock-Pool": "Which of the pools that serve the model.",
    "X-Penstock-Background": "true: the job goes on when the caller hangs up; see /v1/jobs.",
}


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


_JSON = "application/json"
_BYTES = "application/octet-stream"
_TEXT = "text/plain"

# No parameter of its own: whoever tries all that is described would wait for an end that never comes.
_OVERVIEW = "Pools, what waits, who serves; with ?stream=true again each second, without end"

OPERATIONS = (
    Operation("post", "/v1/chat/completions", "Chat", (ChatRequest,), ("200", Completion, _JSON), has_headers=True),
    Operation(
        "post", "/v1/completions", "Completion", (CompletionRequest,), ("200", Completion, _JSON), has_headers=True
    ),
    Operation(
        "post", "/v1/embeddings", "Embeddings", (EmbeddingRequest,), ("200", Embeddings, _JSON), has_headers=True
    ),
    Operation("get", "/v1/models", "What can be asked for", (), ("200", Models, _JSON)),
    Operation("get", "/v1/models/{id}", "One model", (), ("200", Model, _JSON)),
    Operation("post", "/v1/responses", "Response", (ResponseRequest,), ("200", ResponseView, _JSON), has_headers=True),
    Operation(
        "get", "/v1/responses/{id}", "One response, or its stream", (), ("200", ResponseView, _JSON), is_streamed=True
    ),
    Operation("delete", "/v1/responses/{id}", "Forget a response", (), ("200", ResponseDeleted, _JSON)),
    Operation("post", "/v1/responses/{id}/cancel", "End a background response", (), ("200", ResponseView, _JSON)),
    Operation("get", "/v1/responses/{id}/input_items", "What was asked", (), ("200", InputItems, _JSON)),
    Operation("post", "/v1/jobs", "Submit one job, or many", (JobRequest, JobRequests), ("202", JobView, _JSON)),
    Operation("get", "/v1/jobs", "Your jobs, newest first", (), ("200", JobList, _JSON)),
    Operation("get", "/v1/jobs/{id}", "One job, with its answer once it has ended", (), ("200", JobView, _JSON)),
    Operation("post", "/v1/jobs/{id}/cancel", "End a job", (), ("200", JobView, _JSON)),
    Operation("delete", "/v1/jobs/{id}", "End a job", (), ("200", JobView, _JSON)),
    Operation(
        "post",
        "/v1/files",
        "Store a file, such as the input of a batch",
        (FileUpload,),
        ("200", File, _JSON),
        takes="multipart/form-data",
    ),
    Operation("get", "/v1/files", "Your files, newest first", (), ("200", FileList, _JSON)),
    Operation("get", "/v1/files/{id}", "One file", (), ("200", File, _JSON)),
    Operation("delete", "/v1/files/{id}", "Forget a file", (), ("200", FileDeleted, _JSON)),
    Operation("get", "/v1/files/{id}/content", "What is in it", (), ("200", str, _BYTES)),
    Operation("post", "/v1/batches", "Run a file of requests", (BatchRequest,), ("200", Batch, _JSON)),
    Operation("get", "/v1/batches", "Your batches, newest first", (), ("200", BatchList, _JSON)),
    Operation("get", "/v1/batches/{id}", "One batch, and how far it is", (), ("200", Batch, _JSON)),
    Operation("post", "/v1/batches/{id}/cancel", "End a batch with what it has", (), ("200", Batch, _JSON)),
    Operation(
        "post",
        "/v1/webhook_endpoints",
        "Be told of events; the secret is shown this once",
        (WebhookRequest,),
        ("200", WebhookEndpoint, _JSON),
    ),
    Operation("get", "/v1/webhook_endpoints", "Your endpoints", (), ("200", WebhookEndpoints, _JSON)),
    Operation("get", "/v1/webhook_endpoints/{id}", "One endpoint", (), ("200", WebhookEndpoint, _JSON)),
    Operation("delete", "/v1/webhook_endpoints/{id}", "End an endpoint", (), ("200", WebhookDeleted, _JSON)),
    Operation(
        "post",
        "/v1/webhook_endpoints/{id}/rotate",
        "A new secret, shown this once; the old one signs beside it for a day",
        (),
        ("200", WebhookEndpoint, _JSON),
    ),
    Operation("post", "/v1/webhook_endpoints/{id}/test", "Send a test event now", (), ("200", WebhookTest, _JSON)),
    Operation("get", "/v1/overview", _OVERVIEW, (), ("200", Overview, _JSON), is_streamed=True),
    Operation("get", "/livez", "The process lives", (), ("200", str, _TEXT), is_public=True),
    Operation("get", "/readyz", "Requests have somebody to go to", (), ("200", str, _TEXT), is_public=True),
    Operation("get", "/metrics", "Prometheus", (), ("200", str, _TEXT), is_public=True),
)


def document(operations: Iterable[Operation] = OPERATIONS, *, has_keys: bool = True) -> dict[str, Any]:
    """OpenAPI 3.1."""
    operations = tuple(operations)
    types = [kind for one in operations for kind in (*one.request, one.answer[1]) if kind not in (None, str)]
    _, components = msgspec.json.schema_components([*dict.fromkeys([*types, ErrorBody])], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    _link(operations, paths)
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "penstock", "version": "1", "description": "OpenAI's API over a durable queue."},
        "paths": paths,
        "components": {"schemas": components},
    }
    if has_keys:
        whole["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"key": []}]
    return whole


def page(whole: dict[str, Any]) -> str:
    """For people: no script, nothing from other hosts."""
    parts = [_PAGE_START]
    for path, methods in whole["paths"].items():
        for method, one in methods.items():
            parts.append(
                f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(one['summary'])}</p>"
            )
            parts += [_shown_body(one, whole)]
            parts.append("</section>")
    parts.append("<section><h2>Headers</h2><dl>")
    parts += [f"<dt><code>{name}</code></dt><dd>{escape(text)}</dd>" for name, text in _HEADERS.items()]
    parts.append("</dl><h2>Errors</h2><dl>")
    parts += [f"<dt><code>{status}</code></dt><dd>{escape(text)}</dd>" for status, text in _ERRORS.items()]
    parts.append("</dl></section></main></html>")
    return "\n".join(parts)


def _operation(one: Operation) -> dict[str, Any]:
    status, kind, content = one.answer
    shape: dict[str, Any] = {"schema": _schema(kind)} if kind is not None else {}
    answers: dict[str, Any] = {status: {"description": one.summary, "content": {content: shape}}}
    if one.has_headers or one.is_streamed:
        # Its events have no schema here: what OpenAPI 3.1 says of a stream is said of the whole of it.
        answers[status]["content"]["text/event-stream"] = {}
    if one.path == "/v1/jobs" and one.method == "post":
        answers["200"] = {"description": "Many jobs", "content": {_JSON: {"schema": _schema(JobList)}}}
    if one.path == "/readyz":
        answers["503"] = {"description": "Why not", "content": {_TEXT: {"schema": {"type": "string"}}}}
    error = {_JSON: {"schema": _schema(ErrorBody)}}
    for code, text in _ERRORS.items():
        answers.setdefault(code, {"description": text, "content": error})
    operation: dict[str, Any] = {
        "operationId": _name_of(one.method, one.path),
        "summary": one.summary,
        "responses": answers,
        "parameters": _parameters(one),
    }
    if one.request:
        schemas = [_schema(kind) for kind in one.request]
        body = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        operation["requestBody"] = {"required": True, "content": {one.takes: {"schema": body}}}
    if one.is_public:
        operation["security"] = []
    return operation


def _name_of(method: str, path: str) -> str:
    """`post_batches_id_cancel`: what generated clients call it."""
    return "_".join([method, *re.findall(r"[a-z_]+", path.removeprefix("/v1"))])


def _link(operations: Iterable[Operation], paths: dict[str, dict[str, Any]]) -> None:
    """Says where the `id` of what was made can be used."""
    for one in operations:
        makers = paths.get(one.path.partition("/{id}")[0], {})
        if "/{id}" not in one.path or "post" not in makers:
            continue
        name = _name_of(one.method, one.path)
        for status in makers["post"]["responses"].keys() & {"200", "201", "202"}:
            links = makers["post"]["responses"][status].setdefault("links", {})
            links[name] = {"operationId": name, "parameters": {"id": "$response.body#/id"}}


def _parameters(one: Operation) -> list[dict[str, Any]]:
    text = {"schema": {"type": "string"}}
    found: list[dict[str, Any]] = []
    if "{id}" in one.path:
        found.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if one.has_headers:
        found += [{"name": name, "in": "header", "description": why, **text} for name, why in _HEADERS.items()]
    found += queries_of(one.method, one.path)
    if one.path == "/v1/batches" and one.method == "post":
        found.append({"name": "Idempotency-Key", "in": "header", "description": _HEADERS["Idempotency-Key"], **text})
    return found


def _schema(kind: Any) -> dict[str, Any]:
    return {"type": "string"} if kind is str else {"$ref": _REF.format(name=kind.__name__)}


def _shown_body(one: dict[str, Any], whole: dict[str, Any]) -> str:
    if "requestBody" not in one:
        return ""
    schema = next(iter(one["requestBody"]["content"].values()))["schema"]
    names = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]
    rows: list[str] = []
    for name in names:
        shape = whole["components"]["schemas"][name]
        required = shape.get("required", [])
        fields = ", ".join(f"<b>{field}</b>" if field in required else field for field in shape["properties"])
        rows.append(f"<p class=fields>{escape(name)}: {fields}</p>")
    return "".join(rows)


_PAGE_START = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>penstock: API</title>
<style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{margin:0}main{max-width:46rem;margin:0 auto;padding:1.5rem 1rem}
section{border-top:1px solid #8884;padding:.5rem 0}h2{font-size:1rem;margin:.5rem 0}
.fields{font:.875rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}dt{margin-top:.5rem}
</style><main><h1>penstock</h1>
<p>OpenAI's API over a durable queue. The whole description: <a href="/openapi.json">/openapi.json</a>.</p>"""
