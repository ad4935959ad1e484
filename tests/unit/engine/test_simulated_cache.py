"""Who runs, waits and is preempted in the simulated engine's cache."""

from __future__ import annotations

from consumer.engine.simulated_cache import Cache, Sequence, State


def a_cache(
    blocks: int = 10,
    sequences_max: int = 8,
    step_tokens_max: int = 1000,
    watermark: float = 0.0,
    *,
    prefix_caching: bool = True,
) -> Cache[Sequence]:
    return Cache(
        blocks=blocks,
        block_size=4,
        sequences_max=sequences_max,
        step_tokens_max=step_tokens_max,
        watermark=watermark,
        prefix_caching=prefix_caching,
    )


def test_the_first_step_prefills_and_gives_the_first_token() -> None:
    cache, sequence = a_cache(), Sequence(9, 3)
    cache.add(sequence)

    step = cache.step()

    assert (step.sequences, step.prefilled_tokens, step.finished) == (1, 9, [])
    assert (sequence.produced, sequence.blocks, cache.blocks_free) == (1, 3, 7)


def test_later_steps_decode_one_token_each_and_the_last_frees_everything() -> None:
    cache, sequence = a_cache(), Sequence(9, 3)
    cache.add(sequence)
    cache.step()

    assert cache.step().prefilled_tokens == 0
    assert cache.step().finished == [sequence]
    assert (sequence.produced, cache.blocks_free, cache.is_idle) == (3, 10, True)


def test_a_long_prompt_is_prefilled_in_chunks_beside_those_that_decode() -> None:
    cache, short, long = a_cache(step_tokens_max=8), Sequence(2, 20), Sequence(20, 1)
    cache.add(short)
    cache.add(long)

    steps = [cache.step() for _ in range(3)]

    assert [step.prefilled_tokens for step in steps] == [8, 7, 7]
    assert short.produced == 3
    assert steps[-1].finished == [long]


def test_the_youngest_is_preempted_and_finishes_later_with_all_its_tokens() -> None:
    cache, elder, younger = a_cache(blocks=6), Sequence(8, 12), Sequence(8, 12)
    cache.add(elder)
    cache.add(younger)

    finished: list[Sequence] = []
    while not cache.is_idle:
        finished += cache.step().finished

    assert finished == [elder, younger]
    assert cache.preemptions > 0
    assert younger.produced == 12
    assert cache.blocks_free == 6


def test_a_preempted_sequence_is_computed_again_from_the_start() -> None:
    cache, elder, younger = a_cache(blocks=6, prefix_caching=False), Sequence(8, 12), Sequence(8, 12)
    cache.add(elder)
    cache.add(younger)
    while not cache.preemptions:
        cache.step()
    produced = younger.produced
    assert (younger.state, younger.blocks, younger.computed) == (State.WAITING, 0, 0)

    prefilled: list[int] = []
    while younger.state is State.WAITING:
        prefilled.append(cache.step().prefilled_tokens)

    assert prefilled[-1] == 8 + produced


def test_equal_prompts_share_their_full_blocks_and_compute_them_once() -> None:
    cache, keys = a_cache(), (1, 2)
    cache.add(Sequence(9, 3, keys=keys))
    first = cache.step()
    cache.add(Sequence(9, 3, keys=keys))
    second = cache.step()

    assert (first.prefilled_tokens, second.prefilled_tokens) == (9, 1)
    # Two shared blocks, and one each for the rest.
    assert cache.blocks_free == 10 - 2 - 2
    assert (cache.query_tokens, cache.hit_tokens) == (18, 8)


def test_blocks_that_nobody_holds_are_free_and_still_found_until_they_are_taken() -> None:
    cache, keys = a_cache(), (1, 2)
    cache.add(Sequence(8, 1, keys=keys))
    cache.step()
    assert cache.blocks_free == 10
    cache.add(Sequence(9, 1, keys=keys))
    cache.step()
    found = cache.hit_tokens
    cache.add(Sequence(40, 0, keys=()))
    cache.step()
    cache.add(Sequence(9, 1, keys=keys))
    cache.step()

    assert found == 8
    assert cache.hit_tokens == found


def test_one_that_comes_back_after_a_preemption_finds_what_nobody_took() -> None:
    cache, elder, younger = a_cache(blocks=6), Sequence(8, 12), Sequence(8, 12)
    cache.add(elder)
    cache.add(younger)
    while not cache.is_idle:
        cache.step()

    assert cache.preemptions
    assert younger.produced == 12
    assert cache.recomputed_tokens < 8 + 12


def test_a_watermark_keeps_blocks_free_when_others_run_but_not_for_the_first() -> None:
    cache = a_cache(watermark=0.3)
    cache.add(Sequence(36, 4))
    cache.step()
    assert cache.running == 1
    cache = a_cache(watermark=0.3)
    cache.add(Sequence(12, 20))
    cache.add(Sequence(20, 20))
    cache.step()

    assert (cache.running, cache.waiting) == (1, 1)


def test_urgent_ones_are_admitted_first_and_preempted_last() -> None:
    cache = a_cache(blocks=6, sequences_max=1)
    late, urgent = Sequence(1, 1, priority=5), Sequence(1, 1, priority=-5)
    cache.add(late)
    cache.add(urgent)

    assert cache.step().finished == [urgent]
    assert cache.step().finished == [late]


def test_no_more_run_than_sequences_max() -> None:
    cache = a_cache(blocks=100, sequences_max=3)
    for _ in range(5):
        cache.add(Sequence(1, 2))

    cache.step()

    assert (cache.running, cache.waiting) == (3, 2)


def test_removing_frees_the_blocks_of_whatever_state_and_twice_is_fine() -> None:
    cache = a_cache(sequences_max=1)
    running, waiting = Sequence(9, 5), Sequence(9, 5)
    cache.add(running)
    cache.add(waiting)
    cache.step()

    for _ in range(2):
        cache.remove(waiting)
        cache.remove(running)

    assert (cache.blocks_free, cache.running, cache.waiting) == (10, 0, 0)
    assert cache.step().sequences == 0
