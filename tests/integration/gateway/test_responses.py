"""`/v1/responses` as OpenAI's own client uses it: streams that break off and go on, at any gateway, at any time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from penstock import Client
from producer import stored
from schemas import subjects
from schemas.job import decode_job
from tests.integration.gateway.test_openai import run, until, with_gateway
from tests.integration.gateway.test_tenants import key_of
from tests.support.consumer import ConsumerProcess
from tests.support.echo_consumer import EchoConsumer
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

SLOW = ("--engine.step_s", "0.02")
ASK: dict[str, Any] = {"model": "tiny", "input": "Tell me of water", "temperature": 0}
LONG: dict[str, Any] = {**ASK, "max_output_tokens": 60, "extra_body": {"ignore_eos": True}}


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def events_of(stream: Any, limit: int = 10_000) -> list[Any]:
    events: list[Any] = []
    async for event in stream:
        events.append(event)
        if len(events) >= limit:
            await stream.close()
            break
    return events


def test_a_response_is_answered_streamed_and_not_with_the_same_text(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            ask = {**ASK, "max_output_tokens": 400, "instructions": "Be brief", "metadata": {"for": "test"}}
            whole = await client.responses.create(**ask)
            events = await events_of(await client.responses.create(**ask, stream=True))
            async with client.responses.stream(**ask) as stream:
                final = await stream.get_final_response()
            kept = await client.responses.retrieve(whole.id)

        assert whole.output_text
        assert whole.status == "completed"
        assert (whole.metadata, whole.instructions, whole.background) == ({"for": "test"}, "Be brief", False)
        assert whole.usage.output_tokens > 0
        assert kept == whole
        assert text_of(events) == whole.output_text == final.output_text
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events]
        deltas = kinds.count("response.output_text.delta")
        assert kinds == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            *["response.output_text.delta"] * deltas,
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert events[-1].response.output[0] == events[-2].item

    with_gateway(shared, story)


def test_a_dropped_stream_goes_on_at_another_gateway_while_it_runs_and_when_it_has_ended(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            GatewayProcess(own_nats.url, tmp_path) as first,
            GatewayProcess(own_nats.url, tmp_path) as second,
            first.openai() as one,
            second.openai() as other,
        ):
            stream = await one.responses.create(**LONG, background=True, stream=True)
            begun = await events_of(stream, limit=12)
            response_id = begun[0].response.id
            assert (await other.responses.retrieve(response_id)).status == "in_progress"
            rest = await events_of(
                await other.responses.retrieve(response_id, stream=True, starting_after=begun[-1].sequence_number)
            )
            ended = await other.responses.retrieve(response_id)
            again = await events_of(await one.responses.retrieve(response_id, stream=True))
            middle = await events_of(await one.responses.retrieve(response_id, stream=True, starting_after=20))
            nothing = await events_of(
                await one.responses.retrieve(response_id, stream=True, starting_after=again[-1].sequence_number)
            )

        whole = [*begun, *rest]
        assert [event.sequence_number for event in whole] == list(range(len(whole)))
        assert [event.type for event in whole[:3]] == ["response.created", "response.queued", "response.in_progress"]
        assert whole == again
        assert middle == again[21:]
        assert nothing == []
        assert text_of(whole) == ended.output_text
        assert ended.status == "incomplete"
        assert whole[-1].response == ended

    run(story)


def test_a_stream_is_taken_up_again_while_its_response_waits_for_the_first_consumer(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with ConsumerProcess(own_nats.url, tmp_path):
            pass  # The pool exists, and nobody serves it.
        served = ("--gateway.models", '{"tiny": "default"}')
        async with (
            GatewayProcess(own_nats.url, tmp_path, *served) as first,
            GatewayProcess(own_nats.url, tmp_path, *served) as second,
            first.openai() as one,
            second.openai() as other,
        ):
            begun = await events_of(await one.responses.create(**LONG, background=True, stream=True), limit=1)
            response_id = begun[0].response.id
            waits = await other.responses.retrieve(response_id, stream=True, starting_after=0)
            queued = await anext(aiter(waits))
            # Nothing is to be said in this one, and it is open.
            later = await other.responses.retrieve(response_id, stream=True, starting_after=1)
            assert (await other.responses.retrieve(response_id)).status == "queued"
            async with ConsumerProcess(own_nats.url, tmp_path):
                rest = [queued, *await events_of(waits)]
                assert await events_of(later) == rest[1:]
                again = await events_of(await one.responses.retrieve(response_id, stream=True))

        assert queued.type == "response.queued"
        assert [*begun, *rest] == again
        assert again[-1].type == "response.incomplete"

    run(story)


def test_a_gateway_that_is_killed_leaves_streams_that_go_on_elsewhere_and_ends_that_are_told(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            # The first to come leads, so that somebody else must tell the ends.
            GatewayProcess(own_nats.url, tmp_path) as first,
            GatewayProcess(own_nats.url, tmp_path) as second,
            Client(own_nats.url) as queue,
        ):
            async with first.openai() as client:
                stream = await client.responses.create(**LONG, background=True, stream=True)
                begun = await events_of(stream, limit=8)
                quiet = await client.responses.create(**LONG, background=True)
                await first.kill()
            async with second.openai() as client:
                response_id = begun[0].response.id
                rest = await events_of(
                    await client.responses.retrieve(response_id, stream=True, starting_after=begun[-1].sequence_number)
                )

                async def told() -> bool:
                    return len(await _events(queue)) == 2

                await until(told)
                told_of = {(event["type"], event["data"]["id"]) for event in await _events(queue)}

        assert [event.sequence_number for event in [*begun, *rest]] == list(range(len(begun) + len(rest)))
        assert rest[-1].type == "response.incomplete"
        assert told_of == {("response.incomplete", response_id), ("response.incomplete", quiet.id)}

    run(story)


async def _events(queue: Client) -> list[dict[str, Any]]:
    found = stored.messages(queue.session.broker, subjects.EVENTS_STREAM, subjects.EVENTS_ALL)
    return [json.loads(message.data) async for message in found]


def test_a_stream_outlives_a_broker_that_is_killed_and_loses_its_frames(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, "--engine.step_s", "0.05"),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
        ):
            stream = await client.responses.create(**LONG, background=True, stream=True)
            begun = await events_of_some(stream, 8)
            await asyncio.to_thread(own_nats.kill)
            await asyncio.to_thread(own_nats.start)
            rest = [event async for event in stream]
            again = await events_of(await client.responses.retrieve(begun[0].response.id, stream=True))

        assert [*begun, *rest] == again
        assert again[-1].type == "response.incomplete"

    run(story)


def test_a_background_response_goes_on_without_its_reader_until_it_is_cancelled(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
            Client(own_nats.url) as queue,
        ):
            endless = {**LONG, "max_output_tokens": 1000}
            begun = await events_of(await client.responses.create(**endless, background=True, stream=True), limit=6)
            response_id = begun[0].response.id
            again = await client.responses.retrieve(response_id, stream=True, starting_after=begun[-1].sequence_number)
            await anext(aiter(again))
            cancelled = await client.responses.cancel(response_id)
            twice = await client.responses.cancel(response_id)
            last = (await events_of(again))[-1]
            whole = await events_of(await client.responses.retrieve(response_id, stream=True))

            async def told() -> bool:
                return [event["type"] for event in await _events(queue)] == ["response.cancelled"]

            await until(told)

        assert cancelled.status == twice.status == "cancelled"
        assert last.type == "response.cancelled"
        assert whole[-1] == last
        assert [event.sequence_number for event in whole] == list(range(len(whole)))

    run(story)


def test_a_foreground_response_ends_with_its_reader_and_cannot_be_cancelled(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
            Client(own_nats.url) as queue,
        ):
            begun = await events_of(
                await client.responses.create(**{**LONG, "max_output_tokens": 1000}, stream=True), limit=6
            )
            response_id = begun[0].response.id

            async def ended() -> bool:
                return {job.state for job in await queue.jobs()} == {"cancelled"}

            await until(ended)
            assert (await client.responses.retrieve(response_id)).status == "cancelled"
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.cancel(response_id)
            assert refused.value.code == "not_background"

    run(story)


def test_another_tenants_response_is_one_that_never_was(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        keys = {tenant: await key_of(own_nats.url, tenant) for tenant in ("ann", "bob")}
        async with (
            ConsumerProcess(own_nats.url, tmp_path),
            GatewayProcess(own_nats.url, tmp_path, "--gateway.api_keys", "true") as gateway,
            gateway.openai(keys["ann"]) as ann,
            gateway.openai(keys["bob"]) as bob,
        ):
            hers = await ann.responses.create(**ASK, max_output_tokens=5)
            for attempt in (
                lambda: bob.responses.retrieve(hers.id),
                lambda: bob.responses.retrieve(hers.id, stream=True),
                lambda: bob.responses.cancel(hers.id),
                lambda: bob.responses.delete(hers.id),
                lambda: bob.responses.input_items.list(hers.id),
                lambda: bob.responses.retrieve("resp_none"),
                lambda: bob.responses.retrieve("resp_*.>"),
            ):
                with pytest.raises(openai.NotFoundError) as missing:
                    await attempt()
                assert missing.value.code == "response_not_found"
            with pytest.raises(openai.BadRequestError) as chained:
                await bob.responses.create(**ASK, previous_response_id=hers.id)
            assert (await ann.responses.retrieve(hers.id)).id == hers.id

        assert chained.value.code == "previous_response_not_found"

    run(story)


def test_a_conversation_goes_on_from_a_response_until_that_is_deleted(nats_url: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            EchoConsumer(nats_url, pool="talk") as consumer,
            GatewayProcess(nats_url, tmp_path, "--client.pool", "talk") as gateway,
            gateway.openai() as client,
            Client(nats_url) as queue,
        ):
            assert consumer.engine.started == []
            first = await client.responses.create(model="echo", input="my name is Ann", instructions="Repeat")
            second = await client.responses.create(
                model="echo", input=[{"role": "user", "content": "who am I"}], previous_response_id=first.id
            )
            items = await client.responses.input_items.list(second.id)
            await client.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(first.id)
            with pytest.raises(openai.BadRequestError) as forgotten:
                await client.responses.create(model="echo", input="and now", previous_response_id=second.id)
            addresses = [subjects.result("talk", "default", one.id.removeprefix("resp_")) for one in (first, second)]
            left = await stored.results(queue.session.broker, addresses)

        assert list(left) == addresses[1:]
        assert second.previous_response_id == first.id
        assert second.output_text.strip() == "who am I"
        assert [item.content for item in items.data] == ["who am I"]
        assert forgotten.value.code == "previous_response_not_found"

    run(story)


def test_a_repeat_after_a_consumers_death_is_swallowed_and_another_answer_breaks_the_stream(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(shouts: int) -> list[Any]:
        ask: dict[str, Any] = {
            "model": "echo",
            "input": " ".join(f"word-{number}" for number in range(12)),
            "background": True,
            "extra_body": {"pause_s": 0.05, "shouts": shouts},
        }
        async with (
            EchoConsumer(own_nats.url, name="first") as first,
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
        ):
            stream = await client.responses.create(**ask, stream=True)
            events = await events_of_some(stream, 10)
            async with EchoConsumer(own_nats.url, name="second") as second:
                second.engine.started = list(first.engine.started)
                await first.vanish()
                try:
                    async for event in stream:
                        events.append(event)
                except openai.APIError as error:
                    events.append(error)

                async def ended() -> bool:
                    return (await client.responses.retrieve(events[0].response.id)).status == "completed"

                await until(ended)
                return [*events, await client.responses.retrieve(events[0].response.id)]

    async def both() -> None:
        *events, whole = await story(0)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert text_of(events) == whole.output_text

        *events, broken, whole = await story(1)
        assert broken.body["code"] == "stream_broken"
        assert whole.output_text.isupper()
        assert not text_of(events).isupper()

    run(both)


async def events_of_some(stream: Any, count: int) -> list[Any]:
    """The first of a stream that goes on."""
    return [await anext(stream._iterator) for _ in range(count)]


def _window(name: str) -> dict[str, Any]:
    """By hand: the major before does not know the option."""
    return {"extra_body": {"background_options": {"completion_window": name}}}


def test_a_background_response_waits_in_the_lane_of_its_window(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ConsumerProcess(own_nats.url, tmp_path, *SLOW, "--consumer.prefetch", "1"),
            GatewayProcess(own_nats.url, tmp_path) as gateway,
            gateway.openai() as client,
            Client(own_nats.url) as queue,
        ):
            hold = await client.responses.create(**{**LONG, "max_output_tokens": 1000}, background=True)
            for more in (
                _window("soonest"),
                _window("2h"),
                _window("8h"),
                {**_window("8h"), "service_tier": "priority"},
            ):
                await client.responses.create(**ASK, background=True, **more)
            found = stored.messages(
                queue.session.broker, subjects.ready_stream("default"), subjects.ready_of_pool("default")
            )
            jobs = [(message.subject.split(".")[3], decode_job(message.data)) async for message in found]
            await client.responses.cancel(hold.id)

        waiting = [
            (lane, round((job.deadline_unix_ms - job.submitted_unix_ms) / 3_600_000) if job.deadline_unix_ms else 0)
            for lane, job in jobs
            if job.id != hold.id.removeprefix("resp_")
        ]
        assert waiting == [("standard", 0), ("standard", 2), ("bulk", 8), ("interactive", 8)]

    run(story)


def test_the_same_idempotency_key_finds_the_same_response(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            headers = {"Idempotency-Key": f"same-{gateway.port}"}
            ask = {**ASK, "temperature": 1, "max_output_tokens": 20, "extra_headers": headers}
            first = await client.responses.create(**ask)
            again = await client.responses.create(**ask)
            events = await events_of(await client.responses.create(**ask, stream=True))
            apart = await client.responses.create(**{**ask, "extra_headers": {"Idempotency-Key": "x"}})

        assert again == first
        assert text_of(events) == first.output_text
        assert apart.id != first.id

    with_gateway(shared, story)


def test_a_schema_is_kept_to_and_parsed_by_the_client(shared: tuple[str, Path]) -> None:
    from pydantic import BaseModel

    class River(BaseModel):
        name: str
        km: int

    async def story(gateway: GatewayProcess) -> None:
        async with gateway.openai() as client:
            river = await client.responses.parse(model="tiny", input="A river", text_format=River)

        assert isinstance(river.output_parsed, River)

    with_gateway(shared, story)


def test_what_is_not_served_is_refused_by_name(shared: tuple[str, Path]) -> None:
    async def story(gateway: GatewayProcess) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"input": []}, "input"),
            ({"input": 5}, "input"),
            ({"input": [5]}, "input[0]"),
            ({"input": [{"type": "file_search_call"}]}, "input[0]"),
            ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
            ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
            ({"input": "x", "conversation": "conv_1"}, "conversation"),
            ({"input": "x", "background": True, "store": False}, "store"),
            ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
            ({"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice"),
            ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format"),
            ({"input": "x", "metadata": {"k" * 65: "v"}}, "metadata"),
            ({"input": "x", "truncation": "auto"}, "truncation"),
            ({"input": "x", "previous_response_id": "resp_none"}, "previous_response_id"),
            ({"input": "x", "max_output_tokens": 10_000_000}, "max_output_tokens"),
        ]
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for body, param in cases:
                answer = await http.post("/v1/responses", json={"model": "tiny", **body})
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), (body, answer.text)
            kept = (await http.post("/v1/responses", json={"model": "tiny", "input": "x"})).json()["id"]
            odd = await http.get(f"/v1/responses/{kept}?stream=true&starting_after=x")
            whole = await http.get(f"/v1/responses/{kept}?stream=true&starting_after=1")
            surrogate = await http.post(
                "/v1/responses",
                content=b'{"model": "tiny", "input": "\\ud800"}',
                headers={"content-type": "application/json"},
            )

        assert (odd.status_code, odd.json()["error"]["param"]) == (400, "starting_after")
        assert whole.text.startswith("event: response.output_item.added\n")
        assert surrogate.status_code == 400

    with_gateway(shared, story)
