from __future__ import annotations

import asyncio

import pytest

from infra.closed_loop import Reader, Times, closed_loop, percentile


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_delta_of_several_tokens_counts_as_so_many_equal_gaps() -> None:
    clock, times = Clock(), Times()
    reader = Reader(times, clock)
    for seconds, tokens in ((0.5, 1), (0.1, 1), (0.8, 8)):
        clock.now += seconds
        reader.saw(tokens)

    figures = times.figures(seconds=2.0, cpu_s=0.001)

    assert figures.ttft_p50_s == pytest.approx(0.5)
    assert figures.itl_p50_s == pytest.approx(0.1)
    assert (figures.tokens, figures.tokens_per_s) == (10, 5.0)
    assert figures.cpu_us_per_token == pytest.approx(100.0)


def test_a_delta_without_tokens_is_no_first_token() -> None:
    clock, times = Clock(), Times()
    reader = Reader(times, clock)
    reader.saw(0)
    clock.now += 1.0
    reader.saw(1)

    assert times.ttft_s == [1.0]


@pytest.mark.parametrize(
    ("weighted", "share", "value"),
    [
        ([], 0.5, 0.0),
        ([(3.0, 1)], 0.99, 3.0),
        ([(1.0, 1), (2.0, 1), (3.0, 1)], 0.5, 2.0),
        ([(1.0, 1), (9.0, 99)], 0.5, 9.0),
        ([(float(value), 1) for value in range(1, 101)], 0.99, 99.0),
    ],
)
def test_percentiles_weigh_what_came_often(weighted: list[tuple[float, int]], share: float, value: float) -> None:
    assert percentile(weighted, share) == value


def test_a_closed_loop_runs_everything_and_never_more_at_once_than_its_slots() -> None:
    running, most, seen = 0, 0, []
    is_full = asyncio.Event()

    async def one(body: int, reader: Reader) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            is_full.set()
        await is_full.wait()
        reader.saw(1)
        seen.append(body)
        running -= 1

    times, seconds = asyncio.run(closed_loop(range(20), 3, one, spread_s=0.0))

    assert sorted(seen) == list(range(20))
    assert (most, times.tokens) == (3, 20)
    assert seconds > 0
