"""Which web pages may call, and what they are told about it. Pure.

Without keys, these rules are all that stands between a web page in a local browser and the queue.
"""

from __future__ import annotations

from collections.abc import Mapping

from producer.gateway.refusals import Forbidden, Headers

_METHODS = b"GET, POST, DELETE, OPTIONS"
_SEEN_BY_PAGES = b"x-request-id, retry-after, x-penstock-job, x-penstock-pool"
_REMEMBERED_S = b"600"
_HERE = {"localhost", "::1", ""}


def check_caller(headers: Mapping[bytes, bytes], origins: list[str], *, is_open: bool) -> None:
    """Only in open mode: with keys, a page that has none gets nowhere.

    The name in `Host` must then be this machine's, because a page may point its own name at 127.0.0.1.

    Raises:
        Forbidden: a page of a stranger's.
    """
    if not is_open:
        return
    host = headers.get(b"host", b"").decode("latin-1").lower()
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name not in _HERE and not name.startswith("127."):
        raise Forbidden(f"host {host[:80]!r} is not this machine, and without API keys only it is served")
    origin = headers.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1")
    if text.lower().partition("://")[2] != host and not _is_allowed(text, origins):
        raise Forbidden(f"pages of {text[:80]!r} may not call: see gateway.cors_origins")


def cors_headers(headers: Mapping[bytes, bytes], origins: list[str]) -> Headers:
    """Sent with every answer to a page of an allowed origin; empty for anybody else."""
    origin = headers.get(b"origin")
    if origin is None or not origins or not _is_allowed(origin.decode("latin-1"), origins):
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _SEEN_BY_PAGES),
        (b"vary", b"origin"),
    ]


def preflight_headers(headers: Mapping[bytes, bytes]) -> Headers:
    """The rest of what a browser asks before it lets a page call."""
    wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
    return [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted[:1024]),
        (b"access-control-max-age", _REMEMBERED_S),
    ]


def _is_allowed(origin: str, origins: list[str]) -> bool:
    return "*" in origins or origin in origins
