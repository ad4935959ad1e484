from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from infra import topology
from infra.broker import Broker, connect
from infra.messages import only_after
from schemas import subjects
from schemas.config import BrokerSection, ConsumerSection
from schemas.errors import TopologyMismatch
from schemas.subjects import Lane
from tests.support.broker import TestBroker

CFG = BrokerSection()
CONSUMER = ConsumerSection(pool="p")


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("broker")


@asynccontextmanager
async def bare(data_dir: Any) -> AsyncGenerator[Broker]:
    """A server of its own that holds nothing yet: these tests bend the shared streams."""
    async with TestBroker(data_dir) as server:
        broker = await connect(CFG, name="test", url=server.url)
        try:
            yield broker
        finally:
            await broker.close()


async def provision(broker: Broker, cfg: BrokerSection = CFG, consumer: ConsumerSection = CONSUMER) -> list[str]:
    drift = await topology.provision_shared(broker, cfg) + await topology.provision_pool(broker, cfg, consumer)
    return [f"{one.object} {one.field}" for one in drift]


async def config_of(broker: Broker, stream: str) -> dict[str, Any]:
    return (await broker.api(f"STREAM.INFO.{stream}"))["config"]


def test_provisioning_again_changes_nothing(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            assert await provision(broker) == []
            before = await config_of(broker, subjects.RESULTS_STREAM)
            assert await provision(broker) == []
            assert await config_of(broker, subjects.RESULTS_STREAM) == before
            assert await topology.pools(broker) == ["p"]

    asyncio.run(story())


def test_many_consumers_may_start_at_once(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            assert await asyncio.gather(*(provision(broker) for _ in range(8))) == [[]] * 8

    asyncio.run(story())


def test_what_may_be_mended_is_mended_and_reported(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            await provision(broker)
            shorter = BrokerSection(results_kept_s=1000)
            slower = ConsumerSection(pool="p", ack_wait_s=60)
            assert await provision(broker, shorter, slower) == [
                f"stream {subjects.RESULTS_STREAM} max_age",
                *(f"durable {subjects.ready_stream('p')}/lane-{lane.value} ack_wait" for lane in Lane),
            ]
            assert (await config_of(broker, subjects.RESULTS_STREAM))["max_age"] == 1_000_000_000_000
            assert await provision(broker, shorter, slower) == []

    asyncio.run(story())


def test_results_may_be_kept_for_less_than_the_broker_remembers_ids(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            brief = BrokerSection(results_kept_s=60, replies_kept_s=30)
            await provision(broker)
            await provision(broker, brief)
            assert await provision(broker, brief) == []
            await provision(broker)
            assert await provision(broker) == []

    asyncio.run(story())


def test_mending_keeps_what_somebody_else_has_set_beside_it(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            await provision(broker)
            config = await config_of(broker, subjects.RESULTS_STREAM)
            await broker.api(
                f"STREAM.UPDATE.{subjects.RESULTS_STREAM}", {**config, "description": "ours", "max_msgs": 10}
            )
            await provision(broker, BrokerSection(results_kept_s=100))
            config = await config_of(broker, subjects.RESULTS_STREAM)
            assert (config["description"], config["max_msgs"]) == ("ours", 10)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"retention": "interest"}, "retention"),
        ({"storage": "memory"}, "storage"),
        ({"subjects": ["penstock.results.p.>"]}, "subjects"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject"),
        ({"discard": "old", "discard_new_per_subject": False}, "discard"),
    ],
)
def test_what_would_lose_data_is_left_for_a_person(data_dir: Any, change: dict[str, Any], field: str) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            await provision(broker)
            config = await config_of(broker, subjects.RESULTS_STREAM)
            await broker.api(f"STREAM.DELETE.{subjects.RESULTS_STREAM}")
            foreign = {**config, **change}
            created = await broker.api(f"STREAM.CREATE.{subjects.RESULTS_STREAM}", foreign)
            assert "error" not in created
            with pytest.raises(TopologyMismatch, match=f"{subjects.RESULTS_STREAM} has {field}"):
                await provision(broker)
            assert await config_of(broker, subjects.RESULTS_STREAM) == created["config"]

    asyncio.run(story())


def test_a_stream_that_takes_our_subjects_is_named(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            await broker.api("STREAM.CREATE.THEIRS", {"name": "THEIRS", "subjects": ["penstock.>"]})
            with pytest.raises(TopologyMismatch, match="subjects overlap"):
                await provision(broker)

    asyncio.run(story())


def test_a_broker_without_room_for_copies_says_so(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            with pytest.raises(TopologyMismatch, match="replicas > 1 not supported"):
                await provision(broker, BrokerSection(replicas=3))

    asyncio.run(story())


def test_a_stored_result_is_announced_whole(data_dir: Any) -> None:
    async def story() -> bytes:
        async with bare(data_dir) as broker, asyncio.timeout(5):
            await provision(broker)
            heard = await broker.nc.subscribe(subjects.DONE_ALL)  # pyright: ignore[reportUnknownMemberType]
            await broker.store(subjects.result("p", "t", "j"), b'{"id":"j"}', headers=only_after(0))
            msg = await heard.next_msg()
            assert msg.subject == subjects.done("p", "t", "j")
            return msg.data

    assert asyncio.run(story()) == b'{"id":"j"}'


def test_an_attempt_record_is_replaced_and_a_kept_reply_is_kept(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker:
            await provision(broker)
            for stream, subject, left in (
                (subjects.ATTEMPTS_STREAM, subjects.attempts("p", "t", "j"), 1),
                (subjects.REPLIES_STREAM, subjects.kept_reply("p", "t", "j"), 2),
            ):
                for text in (b"1", b"2"):
                    await broker.store(subject, text)
                newest = await broker.last_on(stream, subject)
                assert newest is not None
                assert newest.data == b"2"
                state = (await broker.api(f"STREAM.INFO.{stream}"))["state"]
                assert state["messages"] == left

    asyncio.run(story())


def test_a_lane_is_served_by_its_own_durable_and_an_acked_job_is_gone(data_dir: Any) -> None:
    async def story() -> None:
        async with bare(data_dir) as broker, asyncio.timeout(10):
            await provision(broker)
            stream = subjects.ready_stream("p")
            for lane in Lane:
                await broker.store(subjects.ready("p", lane, "t"), lane.value.encode())
            for lane in reversed(Lane):
                inbox = broker.nc.new_inbox()
                pulled = await broker.nc.subscribe(inbox)  # pyright: ignore[reportUnknownMemberType]
                request = msgspec.json.encode({"batch": 1, "expires": 2_000_000_000})
                pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{subjects.durable(lane)}"
                await broker.nc.publish(pull, request, reply=inbox)
                job = await pulled.next_msg(timeout=3)
                assert job.data == lane.value.encode()
                await job.ack_sync()
            assert (await broker.api(f"STREAM.INFO.{stream}"))["state"]["messages"] == 0

    asyncio.run(story())


def test_any_nats_client_reads_the_presence_bucket(data_dir: Any) -> None:
    async def story() -> bytes:
        async with bare(data_dir) as broker:
            await provision(broker)
            jetstream = broker.nc.jetstream()  # pyright: ignore[reportUnknownMemberType]
            bucket = await jetstream.key_value(subjects.CONSUMERS_BUCKET)
            await bucket.put(subjects.presence_key("p", "c"), b"here")
            entry = await bucket.get(subjects.presence_key("p", "c"))
            status = await bucket.status()
            assert status.ttl == topology.PRESENCE_TTL_S
            assert entry.value is not None
            return entry.value

    assert asyncio.run(story()) == b"here"
