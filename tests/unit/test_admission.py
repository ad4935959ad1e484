"""Who is let in, apart from the arithmetic."""

from __future__ import annotations

import msgspec

from consumer.admission import Admission
from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need, StepCost
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
