"""Who loses its place, over random caches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.budget import KvBudget
from consumer.displacement import computed_tokens, make_room
from consumer.engine.port import Capacity, Need
from consumer.lengths import ANYBODY, OutputLengths
from consumer.waiting import Rank, Waiting

CAPACITY = Capacity(blocks_total=256, blocks_free=256, block_size=16, sequences_max=16, context_tokens_max=2048)
# Lane, prompt, most tokens, produced, whether it keeps its place.
INSIDE = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 900), st.integers(1, 900), st.integers(0, 200), st.booleans()),
    max_size=20,
)


def a_job(number: int, lane: int, prompt: int, most: int, produced: int, *, is_firm: bool = False) -> Waiting:
    need = Need(prompt_tokens=prompt, output_tokens_max=most + produced, produced=lambda: produced)
    return Waiting(Rank(lane, 0, number), str(number), need, ANYBODY, is_firm=is_firm)


@given(INSIDE, st.integers(1, 1800), st.integers(1, 200))
def test_room_is_made_by_the_cheapest_of_the_least_urgent_or_nothing_changes(
    jobs: list[tuple[int, int, int, int, bool]], prompt: int, most: int
) -> None:
    budget = KvBudget(CAPACITY, OutputLengths())
    inside: list[Waiting] = []
    for number, (lane, *sizes, is_firm) in enumerate(jobs):
        one = a_job(number, lane, *sizes, is_firm=is_firm)
        budget.reserve(one.job_id, one.need, ANYBODY)
        inside.append(one)
    urgent = a_job(99, 0, prompt, most, 0)
    before = budget.jobs, budget.sequences, budget.peak_blocks(CAPACITY)

    victims = make_room(urgent, inside, budget, CAPACITY)

    if victims is None:
        assert (budget.jobs, budget.sequences) == before[:2]
        # The forecast is made anew, and looks more closely elsewhere.
        assert budget.peak_blocks(CAPACITY) == pytest.approx(before[2], rel=0.05, abs=2)
        return
    assert budget.lacks(urgent.need, ANYBODY, CAPACITY) == (0.0, 0)
    assert budget.jobs == len(jobs) - len(victims)
    assert all(victim.rank.lane > 0 and not victim.is_firm for victim in victims)
    spared = [one for one in inside if one not in victims and one.rank.lane > 0 and not one.is_firm]
    for victim in victims:
        for other in spared:
            assert other.rank.lane <= victim.rank.lane
            if other.rank.lane == victim.rank.lane:
                assert computed_tokens(victim.need) <= computed_tokens(other.need)


@given(INSIDE, st.integers(1, 1800))
def test_where_any_job_would_fit_an_urgent_one_lacks_nothing(
    jobs: list[tuple[int, int, int, int, bool]], prompt: int
) -> None:
    budget = KvBudget(CAPACITY, OutputLengths())
    for number, (lane, *sizes, _) in enumerate(jobs[:15]):
        one = a_job(number, lane, *sizes)
        budget.reserve(one.job_id, one.need, ANYBODY)
    need = Need(prompt_tokens=prompt, output_tokens_max=100)

    blocks, sequences = budget.lacks(need, ANYBODY, CAPACITY)

    if budget.fits(need, ANYBODY, CAPACITY):
        assert (blocks, sequences) == (0.0, 0)
    else:
        assert blocks >= 0
