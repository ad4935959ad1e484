from __future__ import annotations

import asyncio

import pytest

from infra.broker import Ack, Outgoing
from infra.outbox import BATCH_MAX, BATCHES_IN_FLIGHT, WORTH_A_BATCH, Outbox, chunks_of, decide
from schemas.errors import BusUnavailable, PenstockError


@pytest.mark.parametrize(
    ("waiting", "singles", "batch", "kind", "count"),
    [
        (0, 0, False, "wait", 0),
        (1, 0, False, "single", 1),
        (WORTH_A_BATCH - 1, 0, False, "single", WORTH_A_BATCH - 1),
        (WORTH_A_BATCH, 0, False, "batch", WORTH_A_BATCH),
        (1, WORTH_A_BATCH - 1, False, "batch", 1),
        (500, 0, True, "wait", 0),
        (5000, 0, False, "batch", BATCH_MAX),
    ],
)
def test_few_callers_store_alone_and_many_share_a_batch(
    waiting: int, singles: int, batch: bool, kind: str, count: int
) -> None:
    commit = decide(waiting, singles, batch)

    assert (commit.kind, commit.count) == (kind, count)
    assert commit.reason


class FakeStore:
    def __init__(self) -> None:
        self.singles = 0
        self.batches: list[int] = []

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str] | None, msg_id: str) -> Ack:
        self.singles += 1
        await asyncio.sleep(0.001)
        return Ack("S", self.singles)

    async def store_batch(self, messages: list[Outgoing]) -> list[Ack | PenstockError]:
        self.batches.append(len(messages))
        await asyncio.sleep(0.001)
        return [BusUnavailable("no") if message.payload == b"bad" else Ack("S", 1) for message in messages]


def test_callers_who_come_while_a_batch_is_on_its_way_share_the_next() -> None:
    async def story() -> FakeStore:
        store = FakeStore()
        outbox = Outbox(store)
        first = [asyncio.create_task(outbox.put(Outgoing("s", b"x"))) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = [asyncio.create_task(outbox.put(Outgoing("s", b"x"))) for _ in range(50)]
        await asyncio.gather(*first, *late)
        await outbox.close()
        return store

    store = asyncio.run(story())

    assert store.batches == [100, 50]
    assert store.singles == 0


def test_an_error_in_a_batch_reaches_its_own_caller_only() -> None:
    async def story() -> list[object]:
        outbox = Outbox(FakeStore())
        puts = [outbox.put(Outgoing("s", b"bad" if n == 7 else b"x")) for n in range(40)]
        return list(await asyncio.gather(*puts, return_exceptions=True))

    outcomes = asyncio.run(story())

    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [7]


def test_batches_stay_within_count_and_bytes() -> None:
    big = [Outgoing("s", b"x" * 5_000_000)] * 3
    assert [len(chunk) for chunk in chunks_of(big)] == [1, 1, 1]
    assert [len(chunk) for chunk in chunks_of([Outgoing("s", b"x")] * 2500)] == [1000, 1000, 500]


def test_one_callers_many_messages_have_a_few_batches_on_their_way_and_keep_their_order() -> None:
    class Slow(FakeStore):
        in_flight = most = 0

        async def store_batch(self, messages: list[Outgoing]) -> list[Ack | PenstockError]:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            await asyncio.sleep(0.002)
            self.in_flight -= 1
            return [Ack("S", int(message.payload)) for message in messages]

    async def story() -> tuple[int, list[int]]:
        store = Slow()
        acks = await Outbox(store).put_many([Outgoing("s", b"%d" % number) for number in range(20_500)])
        return store.most, [ack.seq for ack in acks if isinstance(ack, Ack)]

    most, seqs = asyncio.run(story())

    assert most == BATCHES_IN_FLIGHT
    assert seqs == list(range(20_500))
