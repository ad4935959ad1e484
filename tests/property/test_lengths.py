"""What is believed of answers that have not ended yet."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.lengths import ANYBODY, Ending, Origin, OutputLengths, survival

ENDINGS = st.lists(st.builds(Ending, st.integers(1, 3000), st.booleans()), max_size=200)


@given(ENDINGS, st.lists(st.integers(0, 3000), max_size=50))
def test_survival_falls_from_one_and_never_to_nothing(endings: list[Ending], running: list[int]) -> None:
    known = survival(endings, running)

    assert known.at(0) == 1
    assert all(0 < later <= earlier for earlier, later in zip(known.table, known.table[1:], strict=False))
    assert 0 < known.at(10**6) <= known.table[-1]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=100))
def test_without_anything_incomplete_it_is_the_share_that_was_longer(tokens: list[int]) -> None:
    known = survival([Ending(one) for one in tokens])

    for length in (1, 10, 100, 300):
        share = sum(one > length for one in tokens) / len(tokens)
        # The longest of n is not the longest there is: a share of 1 / n or less is in doubt.
        assert known.at(length) == pytest.approx(share, abs=2 / len(tokens))


def test_those_still_running_make_answers_longer() -> None:
    ended = [Ending(20)] * 50

    assert survival(ended, running=[500] * 50).at(100) > 0.4
    assert survival(ended).at(100) < 0.03


def test_answers_cut_by_their_limit_are_taken_for_longer_ones() -> None:
    assert survival([Ending(128, is_cut=True)] * 40).at(127) == 1


def test_a_tenant_is_known_by_its_own_answers_once_there_are_enough() -> None:
    lengths = OutputLengths()
    for _ in range(40):
        lengths.observe(Origin("bulk", "short"), Ending(10))
        lengths.observe(Origin("bulk", "long"), Ending(900))
    lengths.observe(Origin("bulk", "new"), Ending(10))

    assert lengths.remaining(Origin("bulk", "short"), 0, 4096) == 10
    assert lengths.remaining(Origin("bulk", "long"), 0, 4096) == 900
    # Of its lane: half are short, half long.
    assert lengths.remaining(Origin("bulk", "new"), 0, 4096, share=0.9) == 900


@given(ENDINGS, st.integers(0, 6000), st.integers(1, 6000), st.floats(0.05, 0.95))
def test_a_prediction_is_at_least_one_token_and_within_the_limit(
    endings: list[Ending], produced: int, most: int, share: float
) -> None:
    lengths = OutputLengths()
    for ending in endings:
        lengths.observe(ANYBODY, ending)

    assert 1 <= lengths.remaining(ANYBODY, produced, most, share) <= max(1, most - produced)


def test_what_was_learned_is_there_after_a_restart() -> None:
    rng = random.Random(5)
    before, after = OutputLengths(), OutputLengths()
    for _ in range(248):
        before.observe(Origin("bulk", "a"), Ending(rng.randint(1, 500)))

    after.recall(before.learned())

    for produced in (0, 100, 400):
        assert after.remaining(Origin("bulk", "a"), produced, 4096) == before.remaining(
            Origin("bulk", "a"), produced, 4096
        )


def test_ten_thousand_tenants_do_not_fill_the_memory() -> None:
    lengths = OutputLengths()
    for number in range(10_000):
        lengths.observe(Origin("bulk", f"tenant-{number}"), Ending(10))
        lengths.index_of(Origin("bulk", f"tenant-{number}"))

    assert len(lengths.learned()) <= 256
    assert len(lengths.predictions().seen) < 5000
