"""The ASGI application: who calls, which route, and that whatever happens is said in OpenAI's words."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from infra import telemetry
from producer.gateway.asgi import Call, Receive, Scope, Send
from producer.gateway.callers import check_caller, cors_headers, preflight_headers
from producer.gateway.house import House
from producer.gateway.keys import CHALLENGE
from producer.gateway.refusals import Headers, MethodNotAllowed, NotFound, PoolClosed, crashed, refusal_of
from schemas.errors import PenstockError

log = logging.getLogger(__name__)

Handler = Callable[[Call], Awaitable[None]]

_ID = "{id}"
# The rest of the path: names of models hold slashes.
_REST = "{rest}"


class Found(NamedTuple):
    handler: Handler
    pattern: str
    is_public: bool


class Routes:
    """Exact paths, and paths with one `{id}` in them or `{rest}` at their end; both are `parameters["id"]`."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Found]] = {}
        self._with_id: list[tuple[list[str], dict[str, Found]]] = []

    def add(self, method: str, path: str, handler: Handler, *, is_public: bool = False) -> None:
        """`is_public`: needs no key."""
        found = Found(handler, path, is_public)
        if _ID not in path and _REST not in path:
            self._exact.setdefault(path, {})[method] = found
            return
        parts = path.split("/")
        for known, methods in self._with_id:
            if known == parts:
                methods[method] = found
                return
        self._with_id.append((parts, {method: found}))

    def find(self, method: str, path: str) -> tuple[Found, dict[str, str]]:
        """The route and what its `{id}` is.

        Raises:
            NotFound, MethodNotAllowed: there is none.
        """
        methods, parameters = self._exact.get(path), {}
        if methods is None:
            methods, parameters = self._find_with_id(path)
        if methods is None:
            raise NotFound(f"there is no {path[:200]!r} here; see /docs")
        found = methods.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            raise MethodNotAllowed(f"{method} is not for {path[:200]!r}: {allowed}", allowed=allowed)
        return found, parameters

    def _find_with_id(self, path: str) -> tuple[dict[str, Found] | None, dict[str, str]]:
        parts = path.split("/")
        for known, methods in self._with_id:
            value = _value_of(parts, known)
            if value:
                return methods, {"id": value}
        return None, {}


def _value_of(parts: list[str], known: list[str]) -> str:
    """What stands for the parameter of the pattern `known`; empty where the path is another's."""
    if known[-1] == _REST:
        return "/".join(parts[len(known) - 1 :]) if parts[: len(known) - 1] == known[:-1] else ""
    place = known.index(_ID)
    is_ours = len(parts) == len(known) and [*parts[:place], _ID, *parts[place + 1 :]] == known
    return parts[place] if is_ours else ""


class FrontDoor:
    """`await front_door(scope, receive, send)`, as ASGI has it."""

    def __init__(self, house: House, routes: Routes) -> None:
        self._house = house
        self._routes = routes
        self._cfg = house.cfg

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call_id = f"req_{os.urandom(12).hex()}"
        more: Headers = [(b"x-request-id", call_id.encode()), *cors_headers(headers, self._cfg.cors_origins)]
        call = Call(scope, receive, send, headers, more, call_id)
        begun, pattern = time.perf_counter(), "none"
        try:
            check_caller(headers, self._cfg.cors_origins, is_open=not self._cfg.api_keys)
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await call.answer(204, b"", preflight_headers(headers))
                return
            found, scope["path_params"] = self._routes.find(scope["method"], scope["path"])
            pattern = found.pattern
            if not found.is_public:
                self._let_in(call)
            await found.handler(call)
        except PenstockError as error:
            await self._refuse(call, error)
        except Exception:
            log.exception("request.crashed", extra={"request_id": call_id, "path": scope["path"]})
            if call.status:
                raise
            await call.refuse(crashed())
        finally:
            _note(call, pattern, time.perf_counter() - begun)

    def _let_in(self, call: Call) -> None:
        if self._house.why_closed:
            raise PoolClosed(f"this gateway takes no requests: {self._house.why_closed}", retry_after_s=1.0)
        if not self._cfg.api_keys:
            call.tenant = self._house.client.tenant
            return
        record = self._house.keys.holder_of(call.headers)
        call.tenant, call.key = record.tenant, record.id

    async def _refuse(self, call: Call, error: PenstockError) -> None:
        telemetry.GATEWAY_REFUSED.labels(error.code).inc()
        refusal = refusal_of(error)
        level = logging.WARNING if refusal.status >= 500 else logging.DEBUG
        log.log(level, "request.refused", extra={"request_id": call.id, "code": error.code, "error": error.message})
        if call.status:
            # Too late for words: what was begun stays unfinished, and its reader sees that.
            raise error
        if refusal.status == 401:
            refusal.headers.extend(CHALLENGE)
        await call.refuse(refusal)


@cache
def _requests(pattern: str, status: int) -> Counter:
    return telemetry.GATEWAY_REQUESTS.labels(pattern, str(status))


@cache
def _seconds(pattern: str) -> Histogram:
    return telemetry.GATEWAY_SECONDS.labels(pattern)


def _note(call: Call, pattern: str, seconds: float) -> None:
    _requests(pattern, call.status).inc()
    _seconds(pattern).observe(seconds)
    if log.isEnabledFor(logging.DEBUG):
        fields = {"request_id": call.id, "tenant": call.tenant, "route": pattern, "status": call.status}
        log.debug("request.finished", extra={**fields, "seconds": round(seconds, 4)})
