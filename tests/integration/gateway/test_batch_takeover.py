"""A batch outlives its runner, wherever that one dies.

Six tests begin with the names of what is known to break other batch gateways: create_crash_after_store,
cancel_event_lost, orphaned_blob, finalization_strand, zombie_owner_burns_inference, async_result_destruction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from producer import stored
from producer.gateway.batches import life
from producer.gateway.batches.create import asked_of, create
from producer.gateway.batches.keeper import Keeper
from producer.gateway.batches.record import BatchRecord, LostBatch, batch_prefix
from producer.gateway.batches.records import BatchRecords
from producer.gateway.batches.sweep import Sweeper
from producer.ids import job_id
from schemas import subjects
from tests.support.batches import Fuse, Killed, Office, line, office, run_of, taken_over
from tests.support.echo_consumer import EchoConsumer
from tests.support.nats import NatsServer

# More than there are dangerous moments in the life of a small batch.
MOMENTS_MAX = 60


Story = Callable[[Office, EchoConsumer], Awaitable[None]]


def run(nats: NatsServer, folder: Path, story: Story) -> None:
    async def whole() -> None:
        async with (
            asyncio.timeout(60),
            EchoConsumer(nats.url) as consumer,
            office(nats.url, folder) as ours,
        ):
            await story(ours, consumer)

    asyncio.run(whole())


async def check_whole(ours: Office, batch: BatchRecord, custom_ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Every line once, in one of the files, and nothing else left in the store."""
    record = await ours.read(batch)
    found = await ours.lines(record)
    assert sorted(one["custom_id"] for one in [*found["output"], *found["error"]]) == sorted(custom_ids)
    assert (record.completed, record.failed) == (len(found["output"]), len(found["error"]))
    assert {key async for key in ours.store.keys(batch_prefix(record.id))} == await ours.named_keys(record)
    return found


async def events_of(ours: Office, batch: BatchRecord) -> list[str]:
    wanted = subjects.events_of_tenant(batch.tenant)
    found = stored.messages(ours.broker, subjects.EVENTS_STREAM, wanted)
    return [one.subject.split(".", 3)[3] async for one in found if batch.id.encode() in one.data]


async def until(wanted: Callable[[], Awaitable[object]]) -> None:
    while not await wanted():
        await asyncio.sleep(0.02)


def test_whenever_its_runner_dies_another_ends_it_with_every_line_once(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, consumer: EchoConsumer) -> None:
        custom_ids = [f"line-{n}" for n in range(6)]
        lines = [*(line(one) for one in custom_ids[:-1]), line(custom_ids[-1], fail="no")]
        for moment in range(1, MOMENTS_MAX):
            fuse = Fuse()
            first = ours.desk(fuse=fuse)
            batch = await ours.batch(first, *lines)
            # Only what comes after the create.
            fuse._at = fuse.moments + moment
            try:
                await run_of(first, batch).run()
                break
            except Killed:
                if not (await ours.read(batch)).is_open:
                    # It died after its last write.
                    break
                second = ours.desk()
                await run_of(second, await taken_over(second, batch)).run()
            assert (await ours.read(batch)).status == "completed", moment
            found = await check_whole(ours, batch, custom_ids)
            assert [one["custom_id"] for one in found["error"]] == [custom_ids[-1]], moment
            assert await events_of(ours, batch) == ["batch.completed"], moment
        else:
            pytest.fail("it dies at moments that do not exist")
        assert moment > 10
        # Not one line was computed twice.
        assert len(consumer.engine.started) == len(set(consumer.engine.started))

    run(own_nats, tmp_path, story)


def test_whenever_the_runner_of_a_cancelled_batch_dies_another_ends_it(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        custom_ids = [f"line-{n}" for n in range(3)]
        lines = [line(one, pause_s=30) for one in custom_ids]
        for moment in range(1, MOMENTS_MAX):
            fuse = Fuse()
            first = ours.desk(fuse=fuse)
            batch = await ours.batch(first, *lines)
            begun = run_of(first, batch)
            running = asyncio.create_task(begun.run())
            await until(partial(_is_poured, ours, batch))
            fuse._at = fuse.moments + moment
            reader = BatchRecords(ours.broker, "api")
            begun.note(await reader.update(batch.tenant, batch.id, lambda now: life.cancel_asked(now, 1)))
            try:
                await running
                break
            except Killed:
                if not (await ours.read(batch)).is_open:
                    # It died after its last write.
                    break
                second = ours.desk()
                await run_of(second, await taken_over(second, batch)).run()
            assert (await ours.read(batch)).status == "cancelled", moment
            found = await check_whole(ours, batch, custom_ids)
            assert {one["error"]["code"] for one in found["error"]} == {"batch_cancelled"}, moment
            assert await events_of(ours, batch) == ["batch.cancelled"], moment
        else:
            pytest.fail("it dies at moments that do not exist")

    run(own_nats, tmp_path, story)


def test_create_crash_after_store_the_batch_is_run_and_found_again(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        dead, alive = ours.desk(), ours.desk()
        file = await ours.uploaded(line("a"), line("b"))
        body = b'{"input_file_id":"%s","endpoint":"/v1/chat/completions","completion_window":"24h"}' % file.id.encode()
        made = await create(dead, "default", asked_of(body), key=None, window_s_max=1e6)
        # `dead` says no more; its client tries again at another gateway.
        again = await create(alive, "default", asked_of(body), key=None, window_s_max=1e6)
        assert again.id == made.id

        async with kept(Keeper(alive)):
            await until(lambda: _is_over(ours, made))

        await check_whole(ours, made, ["a", "b"])

    run(own_nats, tmp_path, story)


def test_create_crash_after_store_of_the_note_alone_makes_the_batch_at_the_next_try(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        file = await ours.uploaded(line("a"))
        asked = asked_of(
            b'{"input_file_id":"%s","endpoint":"/v1/chat/completions","completion_window":"24h"}' % file.id.encode()
        )
        desk = ours.desk()
        made = await create(desk, "default", asked, key="k", window_s_max=1e6)
        # As if its gateway had died between the two writes.
        await desk.batches.remove("default", made.id)

        again = await create(desk, "default", asked, key="k", window_s_max=1e6)

        assert again.id == made.id
        assert (await ours.read(made)).status == "validating"

    run(own_nats, tmp_path, story)


def test_cancel_event_lost_whoever_takes_over_finds_the_cancel(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, consumer: EchoConsumer) -> None:
        dead, alive = ours.desk(), ours.desk()
        batch = await ours.batch(dead, line("quick"), line("slow", pause_s=30), line("slower", pause_s=30))
        running = asyncio.create_task(run_of(dead, batch).run())
        await until(lambda: _has_output(ours, batch))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # Nobody is there to hear of it.
        await BatchRecords(ours.broker, "api").update("default", batch.id, lambda now: life.cancel_asked(now, 1))

        async with kept(Keeper(alive)):
            await until(lambda: _is_over(ours, batch))

        assert (await ours.read(batch)).status == "cancelled"
        found = await check_whole(ours, batch, ["quick", "slow", "slower"])
        assert [one["custom_id"] for one in found["output"]] == ["quick"]
        assert not consumer.engine.running

    run(own_nats, tmp_path, story)


def test_cancel_event_lost_a_cancel_at_another_gateway_reaches_the_runner(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        desk = ours.desk()
        async with kept(Keeper(desk)) as keeper:
            batch = await ours.batch(desk, line("slow", pause_s=30))
            keeper.begin(batch)
            await until(lambda: _is_poured(ours, batch))
            await BatchRecords(ours.broker, "api").update("default", batch.id, lambda now: life.cancel_asked(now, 1))
            await until(lambda: _is_over(ours, batch))
        assert (await ours.read(batch)).status == "cancelled"

    run(own_nats, tmp_path, story)


def test_orphaned_blob_what_a_dead_runner_wrote_and_could_not_name_is_taken_away(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        fuse = Fuse()
        dead = ours.desk(fuse=fuse)
        batch = await ours.batch(dead, line("a"))
        # Began, put its first segment, and died before the record had it.
        fuse._at = fuse.moments + 4
        with pytest.raises(Killed):
            await run_of(dead, batch).run()
        assert [key async for key in ours.store.keys(batch_prefix(batch.id))]

        alive = ours.desk()
        await run_of(alive, await taken_over(alive, batch)).run()

        await check_whole(ours, batch, ["a"])

    run(own_nats, tmp_path, story)


def test_finalization_strand_a_runner_that_dies_in_the_last_step_is_replaced(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        stranded: list[BatchRecord] = []
        for moment in range(1, MOMENTS_MAX):
            fuse = Fuse()
            dead = ours.desk(fuse=fuse)
            batch = await ours.batch(dead, line("a"))
            fuse._at = fuse.moments + moment
            with contextlib.suppress(Killed):
                await run_of(dead, batch).run()
            status = (await ours.read(batch)).status
            if status == "finalizing":
                stranded.append(batch)
            elif status == "completed":
                break
        assert stranded

        async with kept(Keeper(ours.desk())):
            for batch in stranded:
                await until(partial(_is_over, ours, batch))

        for batch in stranded:
            await check_whole(ours, batch, ["a"])

    run(own_nats, tmp_path, story)


def test_zombie_owner_burns_inference_nothing_it_does_counts_or_runs(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, consumer: EchoConsumer) -> None:
        zombie, alive = ours.desk(), ours.desk()
        batch = await ours.batch(zombie, *(line(f"{n}") for n in range(40)))
        asleep = run_of(zombie, batch, is_sure=False)
        claimed = await taken_over(alive, batch)

        # It wakes up, and does not know yet.
        with pytest.raises(LostBatch):
            await asleep.run()
        assert not consumer.engine.started

        await run_of(alive, claimed).run()
        await check_whole(ours, batch, [f"{n}" for n in range(40)])
        assert len(consumer.engine.started) == 40

    run(own_nats, tmp_path, story)


def test_async_result_destruction_answers_that_came_while_nobody_ran_it_are_taken(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async def story(ours: Office, consumer: EchoConsumer) -> None:
        dead, alive = ours.desk(), ours.desk()
        custom_ids = [f"{n}" for n in range(20)]
        batch = await ours.batch(dead, *(line(one, pause_s=0.5) for one in custom_ids))
        running = asyncio.create_task(run_of(dead, batch).run())
        await until(lambda: _count(consumer.engine.started, 20))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not (await ours.read(batch)).completed
        # All of them end while the batch has no runner.
        await until(lambda: _results(ours, batch, 20))

        await run_of(alive, await taken_over(alive, batch)).run()

        await check_whole(ours, batch, custom_ids)
        assert len(consumer.engine.started) == 20

    run(own_nats, tmp_path, story)


def test_what_nobody_needs_is_swept_away_and_nothing_else(own_nats: NatsServer, tmp_path: Path) -> None:
    async def story(ours: Office, _: EchoConsumer) -> None:
        desk = ours.desk()
        sweeper = Sweeper(desk, Keeper(desk))
        kept_file, expired = await ours.uploaded(b"kept"), await ours.uploaded(b"gone")
        await desk.files.put("default", replace(expired, expires_at=desk.now_s - 1))
        ended = await ours.batch(desk, line("a"))
        await run_of(desk, ended).run()
        going = await ours.batch(desk, line("b"))
        # Of an upload and of a runner that were killed; and of one that may still be on its way.
        strays = {f"files/file-{'0' * 32}/000000", f"batches/batch_{'0' * 32}/output/0001-000000"}
        young = f"files/file-{job_id(desk.unix_ms(), bytes(10))}/000000"
        for key in (*strays, young, "files/somebody-elses"):
            await ours.store.put(key, b".")
        before = {key for prefix in ("files", "batches") async for key in ours.store.keys(prefix)}

        await sweeper.sweep(desk.now_s)
        after = {key for prefix in ("files", "batches") async for key in ours.store.keys(prefix)}

        assert before - after == {*strays, *expired.keys()}
        assert await desk.files.read("default", expired.id) is None
        assert await desk.files.read("default", kept_file.id) == kept_file
        assert (await ours.read(going)).status == "validating"
        await check_whole(ours, ended, ["a"])
        # A month later the batch and its files are history as well, but what runs stays.
        await sweeper.sweep(desk.now_s + 31 * 86400)
        assert await desk.batches.read("default", ended.id) is None
        assert (await ours.read(going)).status == "validating"

    run(own_nats, tmp_path, story)


@contextlib.asynccontextmanager
async def kept(keeper: Keeper) -> AsyncGenerator[Keeper]:
    """Runs it for as long as the block lasts."""
    await keeper.open()
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _is_over(ours: Office, batch: BatchRecord) -> bool:
    record = await ours.read(batch)
    return record.is_over and record.is_told


async def _is_poured(ours: Office, batch: BatchRecord) -> bool:
    return (await ours.read(batch)).poured_lines > 0


async def _has_output(ours: Office, batch: BatchRecord) -> bool:
    return bool((await ours.read(batch)).output)


async def _count(items: list[str], wanted: int) -> bool:
    return len(items) >= wanted


async def _results(ours: Office, batch: BatchRecord, wanted: int) -> bool:
    found = stored.messages(ours.broker, subjects.RESULTS_STREAM, subjects.all_results_of_tenant(batch.tenant))
    return len([one async for one in found if batch.id in one.subject]) >= wanted
