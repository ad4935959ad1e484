"""Which query parameters a route takes, for `/openapi.json`. Pure data."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_ORDER = {"enum": ["asc", "desc"]}


def _page(most: int) -> dict[str, dict[str, Any]]:
    return {"limit": {"type": "integer", "minimum": 1, "maximum": most}, "after": _TEXT}


_BY_SERVICE = "service: what runs, what waits by its place in line, what has ended; `limit` of each."

QUERIES: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("get", "/v1/jobs"): {
        **_page(100),
        "status": _TEXT,
        "pool": _TEXT,
        "order": {"type": "string", "enum": ["newest", "service"], "description": _BY_SERVICE},
    },
    ("get", "/v1/files"): {**_page(10_000), "purpose": _TEXT, "order": _ORDER},
    ("get", "/v1/batches"): _page(100),
    ("get", "/v1/responses/{id}"): {
        "stream": {"type": "boolean"},
        "starting_after": {"type": "integer", "minimum": -1, "maximum": 2**53},
    },
    ("get", "/v1/responses/{id}/input_items"): {**_page(100), "order": _ORDER},
}


def queries_of(method: str, path: str) -> list[dict[str, Any]]:
    found = QUERIES.get((method, path), {})
    return [{"name": name, "in": "query", "schema": schema} for name, schema in found.items()]
