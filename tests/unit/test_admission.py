"""Who is let in, apart from the arithmetic."""

from __future__ import annotations

import msgspec

from consumer.admission import Admission
from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need, StepCost
from consumer.lane_limits import LaneLimits
from consumer.lengths import OutputLengths
from consumer.waiting import Rank, Waiting

CAPACITY = Capacity(
    blocks_total=1000,
    blocks_free=1000,
    block_size=16,
    sequences_max=64,
    context_tokens_max=4096,
    step_tokens_max=2048,
    # One sequence takes 11 ms, ten take 20; a thousand prompt tokens another 10.
    cost=StepCost(base_s=0.010, per_sequence_s=0.001, per_prefill_token_s=0.000_01),
)
INTERACTIVE, BULK = 0, 2


def waiting(name: str, lane: int, prompt_tokens: int = 10) -> Waiting:
    return Waiting(Rank(lane, 0, len(name)), name, Need(prompt_tokens=prompt_tokens, output_tokens_max=10))


def an_admission(itl_target_s: float) -> Admission:
    return Admission(KvBudget(CAPACITY, OutputLengths()), itl_target_s=itl_target_s)


def names(admitted: list[Waiting]) -> list[str]:
    return [one.job_id for one in admitted]


def test_bulk_yields_while_a_step_with_it_would_break_the_interactive_target() -> None:
    admission = an_admission(0.015)
    admission.push(waiting("i", INTERACTIVE))
    for number in range(20):
        admission.push(waiting("b" * (number + 1), BULK))

    # Five sequences take 15 ms, and each prompt a little more.
    first = names(admission.admit(CAPACITY))
    assert first == ["i", "b", "bb", "bbb"]
    assert admission.yields(BULK, CAPACITY, sequences=2)
    assert not admission.yields(INTERACTIVE, CAPACITY)

    admission.leave("i")
    assert len(admission.admit(CAPACITY)) == 17


def test_a_long_bulk_prompt_yields_where_a_short_one_need_not() -> None:
    admission = an_admission(0.015)
    admission.push(waiting("i", INTERACTIVE))
    admission.admit(CAPACITY)

    assert admission.yields(BULK, CAPACITY, prompt_tokens=1000)
    assert not admission.yields(BULK, CAPACITY, prompt_tokens=100)
    # One step computes no more than it can, however long the prompt.
    roomy = msgspec.structs.replace(CAPACITY, step_tokens_max=100)
    assert not admission.yields(BULK, roomy, prompt_tokens=3000)


def test_without_a_target_nobody_yields() -> None:
    admission = an_admission(0.0)
    admission.push(waiting("i", INTERACTIVE))
    for number in range(20):
        admission.push(waiting("b" * (number + 1), BULK))

    assert len(admission.admit(CAPACITY)) == 21


def test_one_that_withdraws_is_not_let_in_and_one_let_in_cannot_withdraw() -> None:
    admission = an_admission(0.0)
    one, other = waiting("one", BULK), waiting("other", BULK)
    admission.push(one)
    admission.push(other)

    assert admission.withdraw(one)
    assert names(admission.admit(CAPACITY)) == ["other"]
    assert not admission.withdraw(other)
    assert len(admission) == 0


SCARCE = msgspec.structs.replace(CAPACITY, blocks_total=100, blocks_free=100, context_tokens_max=1600)


def a_full_admission(clock: list[float], lost: list[str], *, slowdown_max: float = 1.4) -> Admission:
    """Ten bulk jobs of ten blocks each, which is all there is."""
    limits = LaneLimits(slowdown_max, lambda: clock[0])
    admission = Admission(KvBudget(SCARCE, OutputLengths()), limits=limits, displace=lost.append)
    for number in range(10):
        admission.push(a_bulk_job(number))
    assert len(admission.admit(SCARCE)) == 10
    return admission


def a_bulk_job(number: int, *, is_firm: bool = False) -> Waiting:
    need = Need(prompt_tokens=150, output_tokens_max=10, produced=lambda: number)
    return Waiting(Rank(BULK, 0, number), f"bulk-{number}", need, is_firm=is_firm)


def a_chat(name: str = "chat", prompt_tokens: int = 150) -> Waiting:
    return Waiting(Rank(INTERACTIVE, 0, 1000), name, Need(prompt_tokens=prompt_tokens, output_tokens_max=10))


def test_an_interactive_job_enters_a_full_consumer_at_once_and_the_cheapest_bulk_job_makes_room() -> None:
    lost: list[str] = []
    admission = a_full_admission([0.0], lost)
    admission.push(a_chat())

    assert names(admission.admit(SCARCE)) == ["chat"]
    # It has produced nothing yet.
    assert lost == ["bulk-0"]


def test_a_job_displaced_often_enough_keeps_its_place() -> None:
    lost: list[str] = []
    admission = Admission(KvBudget(SCARCE, OutputLengths()), displace=lost.append)
    for number in range(10):
        admission.push(a_bulk_job(number, is_firm=number < 8))
    admission.admit(SCARCE)
    admission.push(a_chat("large", prompt_tokens=450))
    admission.push(a_chat("small"))

    # The two that are left would not be enough for the large one, and nobody overtakes it.
    assert admission.admit(SCARCE) == []
    assert lost == []


def test_room_is_kept_for_the_next_interactive_job_until_they_stop_coming() -> None:
    clock, lost = [0.0], list[str]()
    admission = a_full_admission(clock, lost)
    admission.push(a_chat())
    admission.admit(SCARCE)
    admission.leave("chat")
    admission.push(a_bulk_job(0))

    assert admission.admit(SCARCE) == []
    admission.push(a_chat("next"))
    assert names(admission.admit(SCARCE)) == ["next"]
    assert lost == ["bulk-0"], "the second one found its place free"

    admission.leave("next")
    clock[0] += 1000
    assert names(admission.admit(SCARCE)) == ["bulk-0"]


def test_bulk_alone_is_let_in_as_if_there_were_no_protection() -> None:
    orders: list[list[str]] = []
    for slowdown_max in (0.0, 1.0):
        limits = LaneLimits(slowdown_max, lambda: 0.0)
        admission = Admission(KvBudget(SCARCE, OutputLengths()), limits=limits, displace=lambda _: None)
        order: list[str] = []
        for number in range(60):
            admission.push(a_bulk_job(number))
        while len(admission):
            order += names(admission.admit(SCARCE))
            admission.leave(order[len(order) // 2])
            for name in order:
                admission.leave(name)
        orders.append(order)

    assert orders[0] == orders[1]
    assert len(orders[0]) == 60
