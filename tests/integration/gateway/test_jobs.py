"""`/v1/jobs`, health and documents, over a real socket."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from tests.support.consumer import ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

HELLO: list[Any] = [{"role": "user", "content": "Tell me of water"}]
QUICK: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 3}


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


async def ended(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    while True:
        view = (await http.get(f"/v1/jobs/{job}")).json()
        if view["status"] not in {"queued", "running"}:
            return view
        await asyncio.sleep(0.05)


def test_jobs_are_submitted_one_or_many_seen_listed_and_cancelled(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, "--engine.step_s", "0.02"),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            one = (await http.post("/v1/jobs", json={"body": QUICK, "custom_id": "mine", "lane": "bulk"})).json()
            assert (one["status"], one["lane"], one["object"]) == ("queued", "bulk", "job")
            done = await ended(http, one["id"])
            assert (done["status"], done["custom_id"]) == ("completed", "mine")
            assert done["response"]["choices"][0]["message"]["content"]
            assert done["usage"]["total_tokens"] > done["usage"]["completion_tokens"] > 0

            prompt = {"model": "tiny", "prompt": "x", "max_tokens": 2}
            asked = [
                {"body": QUICK},
                {"body": {**QUICK, "model": "nobody"}, "custom_id": "wrong"},
                {"body": prompt, "endpoint": "/v1/completions"},
            ]
            many = (await http.post("/v1/jobs", json={"jobs": asked})).json()["data"]
            assert [job["status"] for job in many] == ["queued", "refused", "queued"]
            assert (many[1]["custom_id"], many[1]["error"]["code"]) == ("wrong", "model_not_found")
            assert (await ended(http, many[2]["id"]))["response"]["object"] == "text_completion"

            slow = {"body": {**QUICK, "max_tokens": 500, "ignore_eos": True}}
            running = (await http.post("/v1/jobs", json=slow)).json()["id"]
            assert (await http.post(f"/v1/jobs/{running}/cancel")).json()["status"] == "cancelled"
            assert (await http.delete(f"/v1/jobs/{running}")).json()["status"] == "cancelled"
            assert (await http.delete(f"/v1/jobs/{one['id']}")).json()["status"] == "completed"

            page = (await http.get("/v1/jobs", params={"limit": 2})).json()
            rest = (await http.get("/v1/jobs", params={"limit": 10, "after": page["data"][-1]["id"]})).json()
            seen = [job["id"] for job in page["data"] + rest["data"]]
            assert page["has_more"]
            assert sorted(seen) == sorted({one["id"], many[0]["id"], many[2]["id"], running})
            cancelled = (await http.get("/v1/jobs", params={"status": "cancelled"})).json()["data"]
            assert [job["id"] for job in cancelled] == [running]

    run(story)


def test_a_gateway_without_consumers_is_not_ready_and_says_why_and_then_is(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        fixed = tmp_path / "penstock.toml"
        fixed.write_text('[gateway.models]\ntiny = "default"\n')
        async with (
            GatewayProcess(own_nats.url, tmp_path, "--config", str(fixed)) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
            gateway.openai() as client,
        ):
            not_yet = await http.get("/readyz")
            assert (not_yet.status_code, not_yet.text) == (503, "no consumer serves any pool\n")
            assert (await http.get("/livez")).status_code == 200
            with pytest.raises(openai.InternalServerError) as closed:
                await client.chat.completions.create(**QUICK)
            assert closed.value.code == "pool_unavailable"
            assert int(closed.value.response.headers["retry-after"]) > 0

            async with ConsumerProcess(own_nats.url, tmp_path):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
                assert (await client.chat.completions.create(**QUICK)).choices
                metrics = (await http.get("/metrics")).text
                assert 'penstock_gateway_requests_total{route="/v1/chat/completions",status="200"} 1.0' in metrics
                await asyncio.to_thread(own_nats.kill)
                while (await http.get("/readyz")).text != "the broker is away\n":
                    await asyncio.sleep(0.05)

    run(story)


def test_what_is_being_answered_may_finish_when_the_gateway_is_told_to_stop(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, "--engine.step_s", "0.02"),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
        ):
            stream = await client.chat.completions.create(
                **{**QUICK, "max_tokens": 60}, stream=True, extra_body={"ignore_eos": True}
            )
            await anext(aiter(stream))
            gateway.signal(signal.SIGTERM)
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].choices[0].finish_reason == "length"
            assert await gateway.wait(10) == 0

    run(story)


def test_the_description_is_valid_and_the_page_needs_no_other_host(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        async with GatewayProcess(*shared) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
            whole = (await http.get("/openapi.json")).json()
            page = await http.get("/docs")
            answer = (await http.post("/v1/chat/completions", json=QUICK)).json()

        schema = {"$ref": "#/components/schemas/Completion", "components": whole["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)
        for shape in whole["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(shape)
        assert "/v1/jobs/{id}/cancel" in whole["paths"]
        assert "http" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")

    run(story)
