"""`/v1/overview` and the page's files, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import nats

from schemas import subjects
from schemas.decision import Decision, Wish
from tests.integration.gateway.test_tenants import bearer, keys
from tests.support.consumer import ConsumerProcess, DispatcherProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

SLOW: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Tell me of water"}],
    "max_tokens": 3000,
    "ignore_eos": True,
}


async def looks(answer: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line:
            assert line.startswith("data: ")
            yield json.loads(line[6:])


def test_an_overview_shows_consumers_rates_waiting_jobs_and_decisions_each_second(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = own_nats.url
        decision = Decision(pool="default", unix_ms=1, wishes=[Wish(policy="backlog", reason="it grows", replicas=2)])
        async with (
            ConsumerProcess(url, tmp_path, "--engine.step_s", "0.02"),
            DispatcherProcess(url, tmp_path),
            GatewayProcess(url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            job = {"body": SLOW, "lane": "bulk"}
            assert (await http.post("/v1/jobs", json=job)).status_code == 202
            held = await http.post("/v1/jobs", json={**job, "not_before": "1d"})
            assert held.status_code == 202, held.text
            async with http.stream("GET", "/v1/overview?stream=true") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                stream = looks(answer)
                first = await anext(stream)
                assert first["decisions"] == []
                async for look in stream:
                    pool = look["pools"][0]
                    if pool["consumers"] and pool["tokens_per_s"] > 10 and pool["held"]["jobs"] == 1:
                        break
                assert pool["dispatcher"]
                assert pool["consumers"][0]["running"] == 1
                assert 0 < pool["consumers"][0]["kv_blocks_free"] < pool["consumers"][0]["kv_blocks_total"]
                assert set(pool["tenants"]) <= {"default"}
                # News leave out what has not changed.
                assert (look["decisions"], pool["history"]) == (None, [])

                connection = await nats.connect(url)
                await connection.publish(subjects.decisions("default"), msgspec.json.encode(decision))
                await connection.close()
                async for look in stream:
                    if look["decisions"]:
                        break
                assert look["decisions"][0]["why"] == "backlog: it grows"
                assert look["pools"][0]["history"][-1] > 10

            whole = (await http.get("/v1/overview")).json()
            assert whole["decisions"] == look["decisions"]
            described = (await http.get("/openapi.json")).json()
            shape = {**described["components"]["schemas"]["Overview"], "components": described["components"]}
            jsonschema.validate(whole, shape)

    bounded(story())


def test_decisions_that_were_stored_before_the_gateway_started_are_shown(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        connection = await nats.connect(own_nats.url)
        stream = connection.jetstream()
        await stream.add_stream(name=subjects.DECISIONS_STREAM, subjects=[subjects.DECISIONS_ALL], allow_direct=True)
        for second in range(3):
            decision = Decision(pool="default", unix_ms=1000 * second, target=second)
            await stream.publish(subjects.decisions("default"), msgspec.json.encode(decision))
        await connection.close()

        async with (
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            while not (decisions := (await http.get("/v1/overview")).json()["decisions"]):
                await asyncio.sleep(0.05)
            assert [one["target"] for one in decisions] == [2, 1, 0]

    bounded(story())


def test_a_tenant_sees_its_own_backlog_and_no_other_name_and_its_stream_ends_with_its_key(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path),
            DispatcherProcess(url, tmp_path),
            GatewayProcess(url, tmp_path, "--gateway.api_keys", "true") as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            ann, robert = [(await keys(url, "create", "--tenant", name))[0] for name in ("ann", "robert")]
            job = {"body": SLOW, "not_before": "1d", "batch": "roberts-own"}
            assert (await http.post("/v1/jobs", json=job, headers=bearer(robert["key"]))).status_code == 202
            assert (await http.get("/v1/overview")).status_code == 401

            async with http.stream("GET", "/v1/overview?stream=true", headers=bearer(ann["key"])) as answer:
                stream = looks(answer)
                async for look in stream:
                    pool = look["pools"][0]
                    if pool["held"]["jobs"] == 1:
                        break
                assert "robert" not in json.dumps(look)
                assert (look["tenant"], list(pool["tenants"])) == ("ann", ["ann"])

                await keys(url, "revoke", ann["id"])
                last = [look async for look in stream][-1]
                assert last["error"]["code"] == "invalid_api_key"

    bounded(story())


def test_jobs_in_the_order_of_service_are_so_many_of_each_kind(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path, "--engine.step_s", "0.02", "--consumer.jobs_max", "2"),
            DispatcherProcess(url, tmp_path),
            GatewayProcess(url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            for _ in range(12):
                await http.post("/v1/jobs", json={"body": SLOW})
            for _ in range(3):
                await http.post("/v1/jobs", json={"body": SLOW, "not_before": "1d"})
            gone = (await http.get("/v1/jobs")).json()["data"][:3]
            for job in gone:
                await http.delete(f"/v1/jobs/{job['id']}")

            async def shown() -> list[dict[str, Any]]:
                answer = await http.get("/v1/jobs", params={"order": "service", "limit": 2})
                assert answer.status_code == 200, answer.text
                return answer.json()["data"]

            wanted = ["running", "running", "queued", "queued", "cancelled", "cancelled"]
            while [job["status"] for job in await shown()] != wanted:
                await asyncio.sleep(0.1)
            refused = await http.get("/v1/jobs", params={"order": "service", "after": "x"})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "order")
            assert (await http.get("/v1/jobs", params={"order": "best"})).status_code == 400

    bounded(story())


def test_a_gateway_that_stops_does_not_wait_for_open_pages(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(own_nats.url, tmp_path, "--gateway.grace_s", "60") as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
            http.stream("GET", "/v1/overview", params={"stream": "true"}) as answer,
        ):
            stream = looks(answer)
            await anext(stream)

            gateway.signal(15)

            async for _ in stream:
                pass
            assert await gateway.wait(20) == 0

    bounded(story())


def test_the_page_is_safe_cached_by_what_it_holds_and_packed(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            first = await http.get("/")
            assert first.headers["cache-control"] == "no-cache"
            policy = first.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert first.headers["content-encoding"] == "gzip"
            assert "{version}" not in first.text
            again = await http.get("/", headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")

            path = first.text.partition('src="')[2].partition('"')[0]
            script = await http.get(path)
            assert "immutable" in script.headers["cache-control"]
            assert script.headers["content-type"].startswith("text/javascript")
            plain = await http.get(path, headers={"accept-encoding": "identity"})
            assert plain.text == script.text
            older = await http.get("/page/0123456789abcdef/app.js")
            assert (older.text, older.headers["cache-control"]) == (script.text, "no-cache")
            for other in ("/page/x/../../keys.py", "/page/x/none.js", "/page/x/"):
                assert (await http.get(other)).status_code == 404

    bounded(story())


def bounded(story: Any) -> None:
    async def within() -> None:
        async with asyncio.timeout(90):
            await story

    asyncio.run(within())
