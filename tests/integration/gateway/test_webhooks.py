"""Webhooks from a stored event to somebody's server, through gateways that fail, and to servers that do."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from infra import events, topology
from infra.broker import Broker, connect
from infra.life import unix_ms
from schemas.config import BrokerSection
from tests.support.consumer import ROOT
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer
from tests.support.webhook_receiver import Receiver

# No gateway here stores a file, but each makes its folder.
FOLDER = Path(tempfile.mkdtemp(prefix="penstock-webhooks-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
HERE = ("--gateway.webhooks.allowed_networks", '["127.0.0.0/8"]')
KEYS = ("--gateway.api_keys", "true")
QUICK = ("--gateway.webhooks.retries_s", "[0.2, 0.2, 0.2]", "--gateway.webhooks.timeout_s", "0.5")


def run(story: Callable[[], Awaitable[None]], limit_s: float = 60.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(limit_s):
            await story()

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def teller(url: str) -> AsyncGenerator[Broker]:
    """A connection that may publish events."""
    broker = await connect(BrokerSection(), name="test", url=url)
    try:
        await topology.provision_events(broker, BrokerSection())
        yield broker
    finally:
        await broker.close()


async def tell(broker: Broker, subject: str, kind: str = "batch.completed", tenant: str = "default") -> None:
    await events.publish(broker, tenant, kind, subject, created_at=unix_ms() // 1000)


async def endpoint(gateway: GatewayProcess, url: str, **more: Any) -> dict[str, Any]:
    """A new one, with its secret."""
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        made = await http.post("/v1/webhook_endpoints", json={"url": url, **more})
        assert made.status_code == 200, made.text
        return made.json()


async def webhooks(url: str, *words: str) -> list[dict[str, Any]]:
    """`penstock webhooks …`."""
    script = "import sys; from producer.cli import main; sys.exit(main(['webhooks', *sys.argv[1:]]))"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, *words, "--json"],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK__BROKER__URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids_in(receiver: Receiver) -> list[str]:
    return [json.loads(one.body)["data"]["id"] for one in receiver.received]


def test_an_event_reaches_its_tenants_endpoint_signed_so_that_openais_client_unwraps_it(nats_url: str) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, "--client.tenant", "ann") as gateway,
            Receiver() as receiver,
            Receiver() as choosy,
            teller(nats_url) as broker,
        ):
            made = await endpoint(gateway, receiver.url)
            await endpoint(gateway, choosy.url, events=["response.failed"])
            await tell(broker, "batch_of_bob", tenant="bob")
            await tell(broker, "batch_1", tenant="ann")
            await tell(broker, "resp_1", "response.completed", tenant="ann")
            await tell(broker, "resp_2", "response.failed", tenant="ann")
            got = await receiver.until(3)
            await choosy.until(1)

            assert sorted(ids_in(receiver)) == ["batch_1", "resp_1", "resp_2"]
            assert ids_in(choosy) == ["resp_2"]
            client = gateway.openai(webhook_secret=made["secret"])
            unwrapped = {client.webhooks.unwrap(one.body, one.headers).type for one in got}
            assert unwrapped == {"batch.completed", "response.completed", "response.failed"}
            one = client.webhooks.unwrap(got[0].body, got[0].headers)
            assert (one.object, one.id) == ("event", got[0].headers["webhook-id"])
            with pytest.raises(openai.InvalidWebhookSignatureError):
                client.webhooks.unwrap(got[0].body + " ", got[0].headers)
            assert got[0].path == "/hook?x=1"
            assert made["secret"] not in gateway.log

    run(story)


def test_an_endpoint_that_fails_is_asked_again_until_it_takes_the_event(nats_url: str) -> None:
    async def story() -> None:
        answers = iter([500, 0, 302, 204])
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, *QUICK, "--client.tenant", "cat") as gateway,
            Receiver(lambda _: next(answers)) as receiver,
            teller(nats_url) as broker,
        ):
            await endpoint(gateway, receiver.url)
            await tell(broker, "batch_1", tenant="cat")
            got = await receiver.until(4)

            assert len({one.headers["webhook-id"] for one in got}) == 1
            assert {one.path for one in got} == {"/hook?x=1"}
            await tell(broker, "batch_2", tenant="cat")
            answers = iter([204])
            await receiver.until(5)

    run(story)


def test_an_event_that_is_never_taken_is_given_up_after_its_last_retry(nats_url: str) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, *QUICK, "--client.tenant", "dan") as gateway,
            Receiver(lambda _: 500) as receiver,
            teller(nats_url) as broker,
        ):
            await endpoint(gateway, receiver.url)
            await tell(broker, "batch_1", tenant="dan")
            async with asyncio.timeout(20):
                while '"gave_up"' not in gateway.log:
                    await asyncio.sleep(0.05)

            assert len(receiver.received) == 4

    run(story)


def test_dead_endpoints_delay_nobody_else(nats_url: str) -> None:
    async def story() -> None:
        few = ("--gateway.webhooks.concurrency", "8", "--gateway.webhooks.timeout_s", "5")
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, *few, "--client.tenant", "eve") as gateway,
            Receiver(lambda _: 0) as silent,
            Receiver() as well,
            teller(nats_url) as broker,
        ):
            await endpoint(gateway, silent.url)
            await endpoint(gateway, "http://127.0.0.1:9/nobody")
            for number in range(40):
                await tell(broker, f"batch_{number}", tenant="eve")
            await silent.until(4)
            await endpoint(gateway, well.url, events=["batch.failed"])
            began = time.monotonic()
            for number in range(20):
                await tell(broker, f"batch_{number}", "batch.failed", tenant="eve")
            await well.until(20)

            # Before the first try at the silent one was over.
            assert time.monotonic() - began < 5

    run(story)


def test_410_ends_an_endpoint_and_no_other(nats_url: str) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, "--client.tenant", "fay") as gateway,
            Receiver(lambda _: 410) as gone,
            Receiver() as other,
            teller(nats_url) as broker,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            made = await endpoint(gateway, gone.url)
            await endpoint(gateway, other.url)
            await tell(broker, "batch_1", tenant="fay")
            await gone.until(1)
            async with asyncio.timeout(10):
                while (view := (await http.get(f"/v1/webhook_endpoints/{made['id']}")).json())["status"] != "disabled":
                    await asyncio.sleep(0.05)
            assert "410" in view["why_disabled"]
            await asyncio.sleep(0.5)
            await tell(broker, "batch_2", tenant="fay")
            await other.until(2)

            assert len(gone.received) == 1
            listed = (await http.get("/v1/webhook_endpoints")).json()["data"]
            assert [one["status"] for one in listed] == ["disabled", "enabled"]

    run(story)


def test_an_event_is_told_although_the_gateway_that_told_it_is_killed_and_the_broker_restarts(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = own_nats.url
        answers = iter([0])
        async with (
            GatewayProcess(url, tmp_path, *HERE, *QUICK, "--gateway.webhooks.timeout_s", "1") as one,
            Receiver(lambda _: next(answers, 204)) as receiver,
            teller(url) as broker,
        ):
            await endpoint(one, receiver.url)
            await tell(broker, "batch_1")
            await receiver.until(1)
            one.signal(signal.SIGKILL)
            await tell(broker, "batch_2")
            async with GatewayProcess(url, tmp_path, *HERE, *QUICK, "--gateway.webhooks.timeout_s", "1") as two:
                await receiver.until(3)
                assert sorted(ids_in(receiver)) == ["batch_1", "batch_1", "batch_2"]

                await asyncio.to_thread(own_nats.kill)
                await asyncio.to_thread(own_nats.restart)
                await tell(broker, "batch_3")
                # What was acked just before a kill of the broker's may come again.
                while ids_in(receiver)[-1] != "batch_3":
                    await receiver.until(len(receiver.received) + 1)
                assert "crashed" not in two.log

    run(story, 90)


def test_of_two_gateways_one_tells_each_event(nats_url: str) -> None:
    async def story() -> None:
        gil = (*HERE, "--client.tenant", "gil")
        async with (
            GatewayProcess(nats_url, FOLDER, *gil) as one,
            GatewayProcess(nats_url, FOLDER, *gil) as two,
            Receiver() as receiver,
            teller(nats_url) as broker,
        ):
            made = await endpoint(one, receiver.url)
            for number in range(50):
                await tell(broker, f"batch_{number}", tenant="gil")
            await receiver.until(50)
            async with httpx.AsyncClient(base_url=two.url) as http:
                assert (await http.delete(f"/v1/webhook_endpoints/{made['id']}")).json()["deleted"]
                assert (await http.get(f"/v1/webhook_endpoints/{made['id']}")).status_code == 404
            await tell(broker, "batch_x", tenant="gil")
            await asyncio.sleep(1)

            assert sorted(ids_in(receiver)) == sorted(f"batch_{number}" for number in range(50))

    run(story)


def test_the_command_makes_rotates_and_ends_endpoints_and_shows_each_secret_once(nats_url: str) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, "--client.tenant", "hal") as gateway,
            Receiver() as receiver,
            teller(nats_url) as broker,
        ):
            (made,) = await webhooks(nats_url, "create", "--tenant", "hal", "--url", receiver.url)
            (newer,) = await webhooks(nats_url, "rotate", made["id"])
            assert newer["secret"] != made["secret"]
            # So that the gateway has heard of the second secret.
            await asyncio.sleep(0.5)
            await tell(broker, "batch_1", tenant="hal")
            (got,) = await receiver.until(1)
            for secret in (made["secret"], newer["secret"]):
                gateway.openai(webhook_secret=secret).webhooks.unwrap(got.body, got.headers)

            (listed,) = await webhooks(nats_url, "list", "--tenant", "hal")
            assert (listed["id"], listed["url"]) == (made["id"], receiver.url)
            assert "secret" not in listed
            await webhooks(nats_url, "revoke", made["id"])
            assert await webhooks(nats_url, "list", "--tenant", "hal") == []
            with pytest.raises(subprocess.CalledProcessError):
                await webhooks(nats_url, "rotate", made["id"])

    run(story)


def test_a_test_event_tells_what_came_of_it(nats_url: str) -> None:
    async def story() -> None:
        statuses = iter([204, 500])
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, "--client.tenant", "ida") as gateway,
            Receiver(lambda _: next(statuses)) as receiver,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            made = await endpoint(gateway, receiver.url)
            answers = [(await http.post(f"/v1/webhook_endpoints/{made['id']}/test")).json() for _ in range(2)]

            assert [(one["delivered"], one["status_code"]) for one in answers] == [(True, 204), (False, 500)]
            event = gateway.openai(webhook_secret=made["secret"]).webhooks.unwrap(
                receiver.received[0].body, receiver.received[0].headers
            )
            assert event.type == "webhook.test"

    run(story)


def test_a_tenant_cannot_make_the_gateway_call_its_own_network(nats_url: str) -> None:
    async def story() -> None:
        async with (
            GatewayProcess(nats_url, FOLDER, "--client.tenant", "jim") as gateway,
            Receiver() as receiver,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            for url in (receiver.url, "https://169.254.169.254/latest", "https://[::1]/", "http://example.com/"):
                refused = await http.post("/v1/webhook_endpoints", json={"url": url})
                assert refused.status_code == 400, url
                assert refused.json()["error"]["param"] == "url"
            # Names, and numbers that only a resolver reads, are seen through when they are called.
            for host in ("localhost", "2130706433", "0x7f000001", "127.1"):
                made = await endpoint(gateway, f"https://{host}:{receiver.port}/")
                said = (await http.post(f"/v1/webhook_endpoints/{made['id']}/test")).json()
                assert (said["delivered"], said["status_code"]) == (False, 0)
                assert "not public" in said["error"]
                assert "127" not in said["error"]

            assert receiver.connections == 0

    run(story)


def test_so_many_endpoints_a_tenant_and_no_more(nats_url: str) -> None:
    async def story() -> None:
        most = ("--gateway.webhooks.endpoints_max", "2", "--client.tenant", "kim")
        async with (
            GatewayProcess(nats_url, FOLDER, *HERE, *most) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
        ):
            statuses = [
                (await http.post("/v1/webhook_endpoints", json={"url": "https://e.example/"})).status_code
                for _ in range(3)
            ]
            bad = [{}, {"url": 1}, {"url": "https://e.example/", "events": ["x"]}, {"url": "https://e.example", "x": 1}]
            answers = [await http.post("/v1/webhook_endpoints", json=body) for body in bad]

        assert statuses == [200, 200, 400]
        assert [answer.status_code for answer in answers] == [400] * 4
        assert [answer.json()["error"]["param"] for answer in answers] == ["url", "url", "events", "body"]

    run(story)


def test_who_asks_in_the_background_is_told_of_the_end(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        async with GatewayProcess(*shared, *HERE) as gateway, Receiver() as receiver, gateway.openai() as client:
            await endpoint(gateway, receiver.url)
            asked = await client.responses.create(
                model="tiny", input="Tell me of water", background=True, max_output_tokens=5
            )
            (got,) = await receiver.until(1)
            event = json.loads(got.body)
            answer = await client.responses.retrieve(event["data"]["id"])

        assert event["data"]["id"] == asked.id
        assert event["type"] == f"response.{answer.status}"
        assert answer.output_text

    run(story)


def test_who_has_a_batch_run_is_told_of_its_end_once(shared: tuple[str, Path]) -> None:
    async def story() -> None:
        async with GatewayProcess(*shared, *HERE) as gateway, Receiver() as receiver, gateway.openai() as client:
            made = await endpoint(gateway, receiver.url, events=["batch.completed"])
            body = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me of water"}], "max_tokens": 3}
            line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file = await client.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            (got,) = await receiver.until(1)
            event = gateway.openai(webhook_secret=made["secret"]).webhooks.unwrap(got.body, got.headers)
            assert event.type == "batch.completed"
            assert event.data.id == batch.id
            assert (await client.batches.retrieve(event.data.id)).status == "completed"

    run(story)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_endpoint_is_called_over_tls_and_must_be_who_it_says(nats_url: str, tmp_path: Path) -> None:
    async def story() -> None:
        key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names)
        out = ("-keyout", str(key), "-out", str(cert), "-days", "2")
        await asyncio.to_thread(subprocess.run, [*words, *out], check=True, capture_output=True)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert, key)
        loopback = ("--gateway.webhooks.allowed_networks", '["127.0.0.0/8", "::1/128"]')
        said: list[tuple[int, str]] = []
        async with Receiver(tls=tls) as receiver:
            for more in (("--gateway.webhooks.ca_file", str(cert)), ()):
                async with (
                    GatewayProcess(nats_url, FOLDER, *loopback, *more, "--client.tenant", "lea") as gateway,
                    httpx.AsyncClient(base_url=gateway.url) as http,
                ):
                    made = await endpoint(gateway, receiver.url)
                    told = (await http.post(f"/v1/webhook_endpoints/{made['id']}/test")).json()
                    said.append((told["status_code"], told["error"]))

        assert said == [(204, ""), (0, "TLS: CERTIFICATE_VERIFY_FAILED")]
        assert len(receiver.received) == 1

    run(story)
