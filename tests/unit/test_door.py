"""Admission order and its edges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from consumer.admission import Admission
from consumer.budget import KvBudget
from consumer.door import Door
from consumer.engine.port import Capacity, Need
from consumer.lengths import OutputLengths
from consumer.waiting import Rank
from schemas.errors import EngineBusy, PromptTooLong

CAPACITY = Capacity(blocks_total=100, blocks_free=100, block_size=16, sequences_max=32, context_tokens_max=1600)


def a_door(wait_s: float = 5.0) -> tuple[Door, KvBudget]:
    budget = KvBudget(CAPACITY, OutputLengths())
    return Door(Admission(budget), lambda: CAPACITY, wait_s=wait_s), budget


def rank(arrival: int, lane: int = 1) -> Rank:
    return Rank(lane, 0, arrival)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(bounded())


def test_a_prompt_over_the_context_is_refused_with_both_numbers() -> None:
    async def story() -> None:
        door, _ = a_door()
        with pytest.raises(PromptTooLong, match="prompt is 1700 tokens, the model takes 1600"):
            await door.enter("long", Need(prompt_tokens=1700, output_tokens_max=1), rank(1))

    run(story)


def test_jobs_enter_by_lane_then_by_arrival_when_room_comes_back() -> None:
    async def story() -> None:
        door, _ = a_door()
        entered: list[str] = []

        async def enter(job_id: str, place: Rank) -> None:
            await door.enter(job_id, Need(prompt_tokens=1500, output_tokens_max=10), place)
            entered.append(job_id)

        await enter("first", rank(1))
        async with asyncio.TaskGroup() as group:
            group.create_task(enter("bulk", rank(2, lane=2)))
            group.create_task(enter("standard", rank(3)))
            group.create_task(enter("urgent", rank(4, lane=0)))
            for gone in ("first", "urgent", "standard"):
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                door.leave(gone)
                await asyncio.sleep(0)
        assert entered == ["first", "urgent", "standard", "bulk"]

    run(story)


def test_a_job_that_waits_too_long_is_given_up_and_leaves_no_promise_behind() -> None:
    async def story() -> None:
        door, budget = a_door(wait_s=0.01)
        await door.enter("first", Need(prompt_tokens=1500, output_tokens_max=10), rank(1))
        with pytest.raises(EngineBusy):
            await door.enter("second", Need(prompt_tokens=1500, output_tokens_max=10), rank(2))
        door.leave("first")
        assert (door.waiting, budget.jobs) == (0, 0)

    run(story)


def test_a_suspect_runs_alone() -> None:
    async def story() -> None:
        door, _ = a_door()
        small = Need(prompt_tokens=10, output_tokens_max=10)
        await door.enter("neighbour", small, rank(1))
        suspect = asyncio.create_task(door.enter("suspect", small, rank(2), alone=True))
        late = asyncio.create_task(door.enter("late", small, rank(3)))
        await asyncio.sleep(0)
        assert not suspect.done()
        door.leave("neighbour")
        await suspect
        await asyncio.sleep(0)
        assert not late.done()
        door.leave("suspect")
        await late

    run(story)


def test_a_cancelled_waiter_lets_the_next_one_in() -> None:
    async def story() -> None:
        door, budget = a_door()
        await door.enter("first", Need(prompt_tokens=800, output_tokens_max=10), rank(1))
        large = asyncio.create_task(door.enter("large", Need(prompt_tokens=1500, output_tokens_max=10), rank(2)))
        small = asyncio.create_task(door.enter("small", Need(prompt_tokens=100, output_tokens_max=10), rank(3)))
        await asyncio.sleep(0)
        assert not small.done()
        large.cancel()
        await small
        assert budget.jobs == 2

    run(story)
