"""Keys, tenants and limits: who may call, what they see of each other (nothing), and how much they may ask for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.consumer import ROOT, ConsumerProcess
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

KEYS = ("--gateway.api_keys", "true")
HELLO: list[Any] = [{"role": "user", "content": "Tell me of water"}]
CHAT: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 3}


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


async def keys(url: str, *words: str) -> list[dict[str, Any]]:
    """`penstock keys …`, as the module behind it."""
    script = "import sys; from producer.gateway.keys_cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PENSTOCK__BROKER__URL": url}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, *words, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def key_of(url: str, tenant: str) -> str:
    (made,) = await keys(url, "create", "--tenant", tenant)
    return made["key"]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_that_holds_nobody_gets_further_than_the_door(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        key = await key_of(shared[0], "ann")
        async with GatewayProcess(*shared, *KEYS) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
            wrong = key[:-4] + ("aaaa" if key[-4:] != "aaaa" else "bbbb")
            for headers in ({}, bearer("sk-ps-nonsense"), bearer(wrong), bearer(f"sk-ps-{'0' * 16}-{'a' * 43}")):
                for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/v1/jobs")):
                    answer = await http.request(method, path, headers=headers)
                    assert answer.status_code == 401, (headers, path)
                    assert answer.json()["error"]["code"] == "invalid_api_key"
                    assert answer.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/v1/models", headers=bearer(key))).status_code == 200
            assert (await http.get("/v1/models", headers={"api-key": key})).status_code == 200
            for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
                assert (await http.get(path)).status_code == 200
            async with gateway.openai(key) as client:
                assert (await client.chat.completions.create(**CHAT)).choices[0].message.content

    run(story)


def test_a_revoked_key_is_refused_by_every_gateway_within_a_second_and_no_other_is(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        url = shared[0]
        key, other = await key_of(url, "bob"), await key_of(url, "bob")
        async with (
            GatewayProcess(*shared, *KEYS) as one,
            GatewayProcess(*shared, *KEYS) as two,
            httpx.AsyncClient() as http,
        ):

            async def statuses(which: str) -> set[int]:
                urls = [f"{gateway.url}/v1/models" for gateway in (one, two)]
                return {(await http.get(each, headers=bearer(which))).status_code for each in urls}

            assert await statuses(key) == {200}
            await keys(url, "revoke", key.split("-")[2])
            revoked_at = time.monotonic()
            while await statuses(key) != {401}:
                assert time.monotonic() - revoked_at < 1
            assert await statuses(other) == {200}
        listed = {record["id"]: record for record in await keys(url, "list")}
        assert listed[key.split("-")[2]]["revoked_unix_ms"]
        assert "digest" not in listed[key.split("-")[2]]

    run(story)


def test_another_tenants_job_is_as_unknown_as_one_that_never_was(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        url = own_nats.url
        async with (
            ConsumerProcess(url, tmp_path, "--engine.step_s", "0.02"),
            GatewayProcess(url, tmp_path, *KEYS) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            ann, bob = bearer(await key_of(url, "ann")), bearer(await key_of(url, "bob"))
            slow = {"model": "tiny", "messages": HELLO, "max_tokens": 2000, "ignore_eos": True}
            quick = {"model": "tiny", "messages": HELLO, "max_tokens": 2}
            ids: list[str] = []
            for body in (quick, slow):
                made = await http.post("/v1/jobs", json={"body": body}, headers=ann)
                assert made.status_code == 202, made.text
                ids.append(made.json()["id"])
            await _until_ended(http, ids[0], ann)

            for job in (*ids, "0" * 32, "key-" + "0" * 40, "nonsense!"):
                for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
                    answer = await http.request(method, f"/v1/jobs/{job}{path}", headers=bob)
                    assert answer.status_code == 404, (job, method, answer.text)
                    assert answer.json()["error"]["message"] == f"there is no job {job!r}"
            assert (await http.get("/v1/jobs", headers=bob)).json()["data"] == []
            assert (await http.get(f"/v1/jobs?after={ids[0]}", headers=bob)).json()["data"] == []
            # The same idempotency key is another job for another tenant.
            same = {"body": quick, "idempotency_key": "same"}
            made = [(await http.post("/v1/jobs", json=same, headers=who)).json() for who in (ann, bob)]
            assert made[0]["id"] != made[1]["id"]
            assert not made[1]["duplicate"]

            # And nothing of what was tried did any harm.
            assert (await http.get(f"/v1/jobs/{ids[1]}", headers=ann)).json()["status"] == "running"
            assert (await http.delete(f"/v1/jobs/{ids[1]}", headers=ann)).json()["status"] == "cancelled"

    run(story)


async def _until_ended(http: httpx.AsyncClient, job: str, headers: dict[str, str]) -> dict[str, Any]:
    while True:
        view = (await http.get(f"/v1/jobs/{job}", headers=headers)).json()
        if view["status"] not in {"queued", "running"}:
            return view
        await asyncio.sleep(0.05)


def test_a_limit_holds_over_all_gateways_and_says_when_to_come_back(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        url = shared[0]
        limits = ("--gateway.tenants.few.requests_per_minute", "4", "--gateway.tenants.cheap.tokens_per_minute", "100")
        async with (
            GatewayProcess(*shared, *KEYS, *limits) as one,
            GatewayProcess(*shared, *KEYS, *limits) as two,
            one.openai(await key_of(url, "few")) as at_one,
            two.openai(at_one.api_key) as at_two,
            one.openai(await key_of(url, "cheap")) as cheap,
            two.openai(await key_of(url, "many")) as many,
        ):
            for _ in range(4):
                await at_one.chat.completions.create(**CHAT)
            await asyncio.sleep(0.3)
            for client in (at_one, at_two):
                with pytest.raises(openai.RateLimitError) as refused:
                    await client.chat.completions.create(**CHAT)
                assert "the limit is 4" in refused.value.message
                assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
            with pytest.raises(openai.RateLimitError) as dear:
                await cheap.chat.completions.create(model="tiny", messages=HELLO, max_tokens=200)
            assert dear.value.code == "tokens_per_minute_exceeded"
            await asyncio.gather(*(many.chat.completions.create(**CHAT) for _ in range(20)))

    run(story)


def test_concurrency_and_queued_jobs_are_limited_and_free_again_at_the_end(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        limits = ("--gateway.limits.concurrency", "2", "--gateway.limits.jobs_queued", "5")
        async with (
            ConsumerProcess(own_nats.url, tmp_path, "--engine.step_s", "0.02"),
            GatewayProcess(own_nats.url, tmp_path, *limits) as gateway,
            gateway.openai() as client,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):
            slow: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 30}
            answers = await asyncio.gather(
                *(client.chat.completions.create(**slow, extra_body={"ignore_eos": True}) for _ in range(4)),
                return_exceptions=True,
            )
            refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
            assert len(refused) == 2
            assert refused[0].code == "concurrency_exceeded"
            await client.chat.completions.create(**slow)

            body = {**slow, "max_tokens": 100, "ignore_eos": True}
            made = (await http.post("/v1/jobs", json={"jobs": [{"body": body}] * 8})).json()["data"]
            assert [job["status"] for job in made] == ["queued"] * 5 + ["refused"] * 3
            assert made[-1]["error"]["code"] == "jobs_queued_exceeded"

    run(story)


def test_a_gateway_that_strangers_could_reach_does_not_start_without_keys(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        with pytest.raises(AssertionError, match="api_keys must be true"):
            await GatewayProcess(*shared, "--gateway.host", "0.0.0.0").start()

    run(story)


def test_without_keys_a_web_page_of_a_strangers_gets_nothing(shared: tuple[str, Path], tmp_path: Path) -> None:
    async def story() -> None:
        settings = tmp_path / "penstock.toml"
        settings.write_text('[gateway]\ncors_origins = ["https://mine.example"]\n')
        origins = ("--config", str(settings))
        async with GatewayProcess(*shared) as closed, httpx.AsyncClient() as http:
            foreign = {"origin": "https://evil.example"}
            renamed = {"host": "evil.example"}
            for headers in (foreign, renamed):
                answer = await http.post(f"{closed.url}/v1/chat/completions", json=CHAT, headers=headers)
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers
            own = {"origin": closed.url}
            assert (await http.get(f"{closed.url}/v1/models", headers=own)).status_code == 200
        async with GatewayProcess(*shared, *origins) as allowing, httpx.AsyncClient() as http:
            mine = {"origin": "https://mine.example"}
            asked = {**mine, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            before = await http.options(f"{allowing.url}/v1/chat/completions", headers=asked)
            answer = await http.post(f"{allowing.url}/v1/chat/completions", json=CHAT, headers=mine)
            assert before.status_code == 204
            assert before.headers["access-control-allow-headers"] == "authorization"
            assert answer.headers["access-control-allow-origin"] == "https://mine.example"

    run(story)
