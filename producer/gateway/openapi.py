"""`/openapi.json`, made of the very types that the gateway reads and writes, and a page that shows it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

import msgspec

from producer.gateway.openapi_queries import queries_of
from producer.gateway.operations import JSON, OPERATIONS, TEXT, Operation
from schemas.openai import ErrorBody, JobList

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
        answers["200"] = {"description": "Many jobs", "content": {JSON: {"schema": _schema(JobList)}}}
    if one.path == "/readyz":
        answers["503"] = {"description": "Why not", "content": {TEXT: {"schema": {"type": "string"}}}}
    error = {JSON: {"schema": _schema(ErrorBody)}}
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
