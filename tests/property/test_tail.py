"""Sharing the end of a backlog: the two decisions over random pools."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.tail import HeldJob, Pace, View, copies, fastest, fleet_done_in_s, hand_overs, holds_off

STEPS = st.one_of(st.just(0.0), st.floats(0.0005, 0.2))


@st.composite
def paces(draw: st.DrawFn, name: str = "here") -> Pace:
    return Pace(
        name=name,
        step_s=draw(STEPS),
        running=draw(st.integers(0, 64)),
        room=draw(st.integers(0, 64)),
        places=draw(st.integers(0, 8)),
        remaining_tokens=draw(st.integers(0, 20_000)),
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    return View(
        here=draw(paces()),
        peers=[draw(paces(f"peer-{number}")) for number in range(draw(st.integers(0, 4)))],
        backlog=draw(st.integers(0, 5_000)),
        typical_tokens=draw(st.integers(1, 2_000)),
    )


@st.composite
def held_jobs(draw: st.DrawFn) -> list[HeldJob]:
    return [
        HeldJob(
            key=f"job-{number}",
            produced=draw(st.integers(0, 4_000)),
            remaining=draw(st.integers(1, 2_000)),
            remaining_at_most=draw(st.integers(2_000, 4_000)),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


def a_pace(name: str, step_s: float, *, running: int = 8, places: int = 4, remaining_tokens: int = 0) -> Pace:
    return Pace(name=name, step_s=step_s, running=running, room=0, places=places, remaining_tokens=remaining_tokens)


@given(views(), st.integers(1, 4_000))
def test_a_consumer_without_a_clearly_faster_peer_always_pulls(view: View, long_tokens: int) -> None:
    is_fastest = all(peer.step_s == 0 or peer.step_s >= view.here.step_s for peer in view.peers)

    if is_fastest or not view.peers or view.here.step_s == 0:
        assert not holds_off(view, long_tokens)


@given(views(), st.integers(1, 4_000))
def test_somebody_in_every_pool_pulls(view: View, long_tokens: int) -> None:
    pool = [view.here, *view.peers]

    def seen_by(one: Pace) -> View:
        return View(
            here=one,
            peers=[other for other in pool if other is not one],
            backlog=view.backlog,
            typical_tokens=view.typical_tokens,
        )

    assert not all(holds_off(seen_by(one), long_tokens) for one in pool)


@given(views(), st.integers(1, 4_000))
def test_nobody_holds_off_while_much_is_left(view: View, long_tokens: int) -> None:
    if fleet_done_in_s(view) >= long_tokens * view.here.step_s:
        assert not holds_off(view, long_tokens)


@given(views(), held_jobs())
def test_a_job_is_handed_over_only_where_it_ends_sooner_although_it_starts_again(
    view: View, jobs: list[HeldJob]
) -> None:
    steps = {peer.name: peer.step_s for peer in view.peers}
    by_key = {job.key: job for job in jobs}

    for one in hand_overs(view, jobs):
        job = by_key[one.key]
        assert (job.produced + job.remaining) * steps[one.to] < job.remaining * view.here.step_s
        assert job.remaining * view.here.step_s > fleet_done_in_s(view)


@given(views(), held_jobs())
def test_nobody_is_offered_more_than_it_has_places_for_and_no_job_twice(view: View, jobs: list[HeldJob]) -> None:
    chosen = hand_overs(view, jobs)

    assert len({one.key for one in chosen}) == len(chosen)
    for peer in view.peers:
        assert sum(one.to == peer.name for one in chosen) <= peer.places
    if fastest(view) is None:
        assert chosen == []


def test_a_slow_consumer_leaves_the_last_job_to_a_fast_one() -> None:
    slow, fast = a_pace("slow", 0.010, remaining_tokens=400), a_pace("fast", 0.0025, remaining_tokens=400)

    at_the_end = View(here=slow, peers=[fast], backlog=5, typical_tokens=100)
    in_the_middle = View(here=slow, peers=[fast], backlog=500, typical_tokens=100)

    assert holds_off(at_the_end, 100)
    assert not holds_off(in_the_middle, 100)
    assert not holds_off(View(here=fast, peers=[slow], backlog=5, typical_tokens=100), 100)


def test_of_two_late_jobs_the_longer_one_gets_the_only_place() -> None:
    slow = a_pace("slow", 0.010, remaining_tokens=1_000)
    fast = a_pace("fast", 0.0025, places=1)
    jobs = [
        HeldJob(key="short", produced=10, remaining=300, remaining_at_most=600),
        HeldJob(key="long", produced=10, remaining=700, remaining_at_most=900),
    ]

    chosen = hand_overs(View(here=slow, peers=[fast], backlog=0, typical_tokens=100), jobs)

    assert [(one.key, one.to) for one in chosen] == [("long", "fast")]


def test_a_job_that_is_nearly_done_stays() -> None:
    slow, fast = a_pace("slow", 0.010), a_pace("fast", 0.0025)
    job = HeldJob(key="job", produced=900, remaining=100, remaining_at_most=150)

    assert hand_overs(View(here=slow, peers=[fast], backlog=0, typical_tokens=100), [job]) == []


@given(views(), held_jobs())
def test_copies_run_only_in_idle_slots_of_faster_peers_and_only_when_nothing_is_left_to_pull(
    view: View, jobs: list[HeldJob]
) -> None:
    chosen = copies(view, jobs)

    if view.backlog or fastest(view) is None:
        assert chosen == []
    assert len({one.key for one in chosen}) == len(chosen)
    for peer in view.peers:
        offered = sum(one.to == peer.name for one in chosen)
        assert offered <= peer.room
        assert not offered or peer.step_s < view.here.step_s
