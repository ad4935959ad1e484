"""Tenants do not see one another: every described route with somebody else's id answers as with one that never was.

The routes come from /openapi.json, and whatever is served is described there; so a new route is tried as soon as it
exists, and one whose things nobody here can make fails until somebody says how.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from producer.gateway.app import app
from producer.gateway.house import House
from producer.gateway.operations import OPERATIONS
from schemas.config import Config
from tests.integration.gateway.test_tenants import bearer, key_of
from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me of water"}]}
SLOW = {**CHAT, "max_tokens": 5000, "ignore_eos": True}
# What belongs to nobody.
SHARED = {"/v1/models/{id}"}
# Of an answer: what differs from one to the next, whoever asks.
PASSING = {"date", "x-request-id", "content-length"}
QUERIES = ("", "?limit=1", "?stream=true", "?stream=true&starting_after=0")


class Case(NamedTuple):
    method: str
    # With `ID` where an id goes.
    path: str
    body: Any = None


async def a_job(http: httpx.AsyncClient) -> str:
    return await _made(http, "/v1/jobs", {"body": SLOW})


async def a_file(http: httpx.AsyncClient) -> str:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": SLOW}
    files = {"file": ("a.jsonl", json.dumps(line).encode(), "application/jsonl")}
    answer = await http.post("/v1/files", files=files, data={"purpose": "batch"})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def a_batch(http: httpx.AsyncClient) -> str:
    return await _made(http, "/v1/batches", _batch_of(await a_file(http)))


async def a_response(http: httpx.AsyncClient) -> str:
    body = {"model": "tiny", "input": "Tell me of water", "background": True, "max_output_tokens": 5000}
    return await _made(http, "/v1/responses", {**body, "ignore_eos": True})


async def an_endpoint(http: httpx.AsyncClient) -> str:
    return await _made(http, "/v1/webhook_endpoints", {"url": "https://ann.example/hook"})


# How to make one of what a collection holds.
MAKERS: dict[str, Callable[[httpx.AsyncClient], Awaitable[str]]] = {
    "/v1/jobs": a_job,
    "/v1/files": a_file,
    "/v1/batches": a_batch,
    "/v1/responses": a_response,
    "/v1/webhook_endpoints": an_endpoint,
}


async def _made(http: httpx.AsyncClient, path: str, body: Any) -> str:
    answer = await http.post(path, json=body)
    assert answer.status_code in {200, 202}, answer.text
    return answer.json()["id"]


def _batch_of(file: str) -> dict[str, Any]:
    return {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def operations(whole: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def cases_of(whole: dict[str, Any], collection: str) -> list[Case]:
    """Every way to name one thing of `collection`."""
    cases: list[Case] = []
    for method, path, operation in operations(whole):
        if not path.startswith(f"{collection}/{{"):
            continue
        where = path.replace("{id}", "ID")
        body = {} if "requestBody" in operation else None
        cases += [Case(method, where + query, body) for query in (QUERIES if method == "GET" else ("",))]
    return cases


def lists_and_references(whole: dict[str, Any], collection: str) -> list[Case]:
    """Every way to ask for other things with an id of `collection`."""
    cases: list[Case] = []
    if "get" in whole["paths"].get(collection, {}):
        cases += [Case("GET", f"{collection}?{name}=ID") for name in ("after", "before", "batch", "purpose")]
    if collection == "/v1/files" and "/v1/batches" in whole["paths"]:
        cases.append(Case("POST", "/v1/batches", _batch_of("ID")))
    if collection == "/v1/responses":
        cases.append(Case("POST", collection, {"model": "tiny", "input": "x", "previous_response_id": "ID"}))
    return cases


async def answer_of(http: httpx.AsyncClient, case: Case, thing: str) -> tuple[int, dict[str, str], str]:
    """With the id taken out: what is left may not depend on it."""
    body = json.loads(json.dumps(case.body).replace("ID", thing)) if case.body is not None else None
    answer = await http.request(case.method, case.path.replace("ID", thing), json=body)
    headers = {name: value for name, value in answer.headers.items() if name not in PASSING}
    return answer.status_code, headers, answer.text.replace(thing, "ID")


async def looks(http: httpx.AsyncClient, path: str) -> list[str]:
    """What is there, and the first event of its stream where it has one."""
    found = [(await http.get(path)).text]
    async with http.stream("GET", f"{path}?stream=true") as answer:
        if answer.headers["content-type"].startswith("text/event-stream"):
            found.append(await anext(answer.aiter_text()))
    return found


def unknown_like(thing: str) -> str:
    """An id of the same shape that was never given to anybody."""
    return thing[:-6] + ("000000" if thing[-6:] != "000000" else "111111")


def test_with_another_tenants_id_every_route_answers_as_with_one_that_never_was(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path, "--engine.step_s", "0.02"),
            GatewayProcess(url, tmp_path, "--gateway.api_keys", "true") as gateway,
            _caller(gateway, await key_of(url, "ann")) as ann,
            _caller(gateway, await key_of(url, "bob")) as bob,
        ):
            whole = (await bob.get("/openapi.json")).json()
            things = {path: await make(ann) for path, make in MAKERS.items() if path in whole["paths"]}

            for collection, thing in things.items():
                for case in cases_of(whole, collection):
                    theirs = await answer_of(bob, case, thing)
                    assert theirs == await answer_of(bob, case, unknown_like(thing)), case
                    assert theirs[0] == 404, (case, theirs)
                    assert set(json.loads(theirs[2])["error"]) == {"message", "type", "param", "code"}
                for case in lists_and_references(whole, collection):
                    theirs = await answer_of(bob, case, thing)
                    assert theirs == await answer_of(bob, case, unknown_like(thing)), case
            # What bob has asked for himself has failed or is his; of ann's there is nothing in any list.
            for method, path, _ in operations(whole):
                if method == "GET" and "{" not in path and path.startswith("/v1/"):
                    for text in await looks(bob, path):
                        assert not [name for name in ("ann", *things.values()) if f'"{name}"' in text], path
            # And nothing of what was tried did any harm.
            for collection, thing in things.items():
                kept = await ann.get(f"{collection}/{thing}")
                assert kept.status_code == 200, (collection, kept.text)
                assert kept.json().get("status", "") not in {"cancelled", "cancelling", "disabled"}, kept.text

    asyncio.run(asyncio.wait_for(story(), 120))


def test_every_described_route_asks_for_a_key_unless_it_says_that_it_needs_none(
    shared: tuple[str, Path],
) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(*shared, "--gateway.api_keys", "true") as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            whole = (await http.get("/openapi.json")).json()
            for method, path, operation in operations(whole):
                answer = await http.request(method, path.replace("{id}", "x"), json={} if method == "POST" else None)
                assert (answer.status_code == 401) == (operation.get("security") != []), (method, path)

    asyncio.run(story())


def test_whatever_needs_a_key_is_described_and_its_things_can_be_made_here() -> None:
    house = House(Config(), "nats://127.0.0.1:1", name="x", unix_ms=lambda: 0)
    routes = app(house)._routes
    every = [*routes._exact.values(), *(methods for _, methods in routes._with_id)]
    served = {
        (method.lower(), found.pattern.replace("{rest}", "{id}"))
        for methods in every
        for method, found in methods.items()
        if not found.is_public
    }

    assert served == {(one.method, one.path) for one in OPERATIONS if not one.is_public}
    for _, path in served:
        assert "{" not in path or path in SHARED or path.partition("/{")[0] in MAKERS, f"add a maker for {path}"


def _caller(gateway: GatewayProcess, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, headers=bearer(key), timeout=20)
