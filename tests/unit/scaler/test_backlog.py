"""The order of waiting jobs, one claim at a time."""

from __future__ import annotations

import pytest

from scaler.dispatch.backlog import Backlog, Capacity
from scaler.dispatch.keys import key_of
from scaler.dispatch.settings import DispatchSettings, changed
from schemas.backlog import Ticket
from schemas.config import DispatcherSection, WindowSection
from schemas.dispatch import Change, Quote
from schemas.subjects import Lane

NOW = 1_800_000_000_000
# A job of `a_backlog` has 100 tokens: a second of work.
CAPACITY = Capacity(decode_tokens_per_s=100.0)
HOUR_MS = 3_600_000


class Queue:
    """A backlog of jobs of one second each, numbered as they come."""

    def __init__(self, **cfg: object) -> None:
        self.backlog = Backlog(DispatcherSection(**cfg), lambda _tenant, _lane, most: most or 100.0)  # type: ignore[arg-type]
        self.seq = 0

    def add(self, tenant: str = "ann", jobs: int = 1, lane: Lane = Lane.STANDARD, **ticket: object) -> list[int]:
        first = self.seq + 1
        for _ in range(jobs):
            self.seq += 1
            self.backlog.add(self.seq, lane, tenant, Ticket(**ticket), self.seq + 1000, NOW)  # type: ignore[arg-type]
        return list(range(first, self.seq + 1))

    def pick(self, jobs: int = 1000, now_ms: int = NOW, capacity: Capacity = CAPACITY) -> list[int]:
        return self.backlog.pick(jobs, now_ms, capacity)

    def quote(self, now_ms: int = NOW, capacity: Capacity = CAPACITY, **quote: object):
        return self.backlog.quote(Quote(**{"tenant": "ann", "output_tokens": 100, **quote}), now_ms, capacity)


def test_interactive_goes_before_standard_before_bulk() -> None:
    queue = Queue()
    (bulk,) = queue.add(lane=Lane.BULK)
    (standard,) = queue.add(lane=Lane.STANDARD)
    (interactive,) = queue.add(lane=Lane.INTERACTIVE)

    assert queue.pick() == [interactive, standard, bulk]


def test_a_newcomer_is_served_before_the_next_job_of_one_with_many() -> None:
    queue = Queue()
    queue.add("whale", 1000)
    queue.pick(500)
    (first,) = queue.add("newcomer")

    assert queue.pick(1) == [first]


def test_who_comes_and_goes_gains_nothing() -> None:
    queue = Queue()
    queue.add("whale", 200)
    come_and_go = 0
    for _ in range(100):
        mine = queue.add("here-and-away")
        come_and_go += queue.pick(1) == mine
        queue.backlog.cancel_tenant("here-and-away")

    assert come_and_go <= 51


def test_weights_are_shares() -> None:
    queue = Queue(weights={"ann": 3.0})
    anns = set(queue.add("ann", 900))
    queue.add("bob", 900)

    assert len(anns.intersection(queue.pick(400))) == pytest.approx(300, abs=2)


def test_weights_change_live() -> None:
    queue = Queue(weights={"ann": 3.0})
    anns = set(queue.add("ann", 900))
    queue.add("bob", 900)
    queue.pick(100)

    queue.backlog.change(DispatchSettings(weights={"ann": 1.0, "bob": 4.0}))

    assert len(anns.intersection(queue.pick(500))) == pytest.approx(100, abs=4)


def test_neighbours_of_the_same_prefix_are_taken_along() -> None:
    queue = Queue()
    queue.add("ann")
    queue.pick()
    first = [queue.add(prefix_key=number % 4 + 1)[0] for number in range(16)]
    queue.add("bob", 20)
    queue.pick(2)

    picked = [seq for seq in queue.pick(20) if seq in first]

    assert [seq % 4 for seq in picked[:3]] == [picked[0] % 4] * 3


def test_a_group_among_fifty_prompts_is_found_and_not_cut_by_small_picks() -> None:
    queue = Queue()
    for number in range(600):
        queue.add(prefix_key=number % 50 + 1)
    queue.pick(1)

    # As a dispatcher picks: when a job or two are done.
    turns = [queue.pick(1) for _ in range(50)]

    assert all(len({seq % 50 for seq in turn}) == 1 for turn in turns)
    assert sum(len(turn) for turn in turns) >= 50 * 6


def test_the_end_of_the_queue_within_reach_does_not_end_the_looking() -> None:
    queue = Queue()
    for number in range(300):
        queue.add(prefix_key=number % 50 + 1)
    # The first looks are for one that came new, and a short one.
    for _ in range(2):
        queue.pick(1)

    turns = [queue.pick(1) for _ in range(20)]

    assert sum(len(turn) == 6 for turn in turns) >= 19


def test_a_deadline_that_needs_it_goes_before_turns() -> None:
    queue = Queue()
    queue.add("whale", 5000)
    urgent = queue.add("ann", 3, lane=Lane.BULK, deadline_unix_ms=NOW + 40_000)

    assert queue.pick(3) == urgent


def test_a_deadline_far_away_waits_its_turn() -> None:
    queue = Queue()
    others = queue.add("bob", 3)
    far = queue.add("ann", lane=Lane.BULK, deadline_unix_ms=NOW + HOUR_MS)

    assert queue.pick() == others + far


def test_a_paused_tenant_waits_and_keeps_its_place() -> None:
    queue = Queue()
    mine = queue.add("ann", 3)
    queue.backlog.change(DispatchSettings(paused_tenants=frozenset({"ann"})))
    assert queue.pick() == []
    assert queue.backlog.first("ann", 1, NOW, CAPACITY)[0].why_held == "tenant ann is paused"

    queue.backlog.change(DispatchSettings())

    assert queue.pick() == mine


def test_a_paused_batch_waits_and_others_of_the_tenant_do_not() -> None:
    queue = Queue()
    queue.backlog.change(DispatchSettings(paused_batches=frozenset({"b1"})))
    queue.add(batch="b1")
    (free,) = queue.add(batch="b2")

    assert queue.pick() == [free]


def test_a_job_waits_until_its_time() -> None:
    queue = Queue()
    (mine,) = queue.add(not_before_unix_ms=NOW + 5000)

    assert queue.pick(now_ms=NOW + 4999) == []
    assert queue.pick(now_ms=NOW + 5000) == [mine]


def test_a_window_that_closes_takes_back_what_was_not_picked() -> None:
    queue = Queue(windows={"half": WindowSection(cron="0 * * * *", hours=0.5)})
    hour = NOW - NOW % HOUR_MS
    first, second = queue.add(jobs=2, window="half")

    assert queue.pick(1, hour - 1) == []
    assert queue.pick(1, hour) == [first]
    assert queue.pick(1, hour + HOUR_MS // 2) == []
    assert queue.pick(1, hour + HOUR_MS) == [second]


def test_an_expired_job_is_never_picked() -> None:
    queue = Queue()
    (late,) = queue.add(deadline_unix_ms=NOW + 1)

    assert queue.pick(now_ms=NOW + 2) == []
    assert queue.backlog.expire(NOW + 2) == [late]
    assert queue.backlog.expire(NOW + 2) == []


def test_what_is_put_back_is_first_again() -> None:
    queue = Queue()
    queue.add("bob", 10)
    queue.add("ann", 10)
    picked = queue.pick(6)

    queue.backlog.put_back(picked)

    assert sorted(queue.pick(6)) == sorted(picked)


def test_a_sequence_number_seen_before_is_ignored() -> None:
    queue = Queue()
    queue.add()
    queue.backlog.add(1, Lane.STANDARD, "bob", Ticket(), 5, NOW)

    assert len(queue.backlog) == 1


def test_moved_jobs_are_found_until_they_are_forgotten() -> None:
    queue = Queue()
    queue.add(jobs=2)
    (picked,) = queue.pick(1)
    assert queue.backlog.find("ann", [1001, 1002]) == {1001: 1, 1002: 2}

    queue.backlog.moved([picked])

    assert queue.backlog.find("ann", [1001, 1002]) == {1002: 2}
    assert queue.backlog.find("bob", [1002]) == {}


def test_a_deadline_is_refused_only_when_there_is_no_room_for_it() -> None:
    queue = Queue()
    queue.add(jobs=1000, deadline_unix_ms=NOW + 1000_000)

    refused = queue.quote(jobs=200, output_tokens=20_000, deadline_unix_ms=NOW + 1000_000)
    accepted = queue.quote(jobs=200, output_tokens=20_000, deadline_unix_ms=NOW + 1210_000)

    assert not refused.is_accepted
    assert accepted.is_accepted
    # What is said to be possible is accepted.
    assert NOW + 1100_000 < refused.earliest_unix_ms < NOW + 1210_000
    assert queue.quote(jobs=200, output_tokens=20_000, deadline_unix_ms=refused.earliest_unix_ms).is_accepted


def test_a_refused_deadline_takes_no_room_from_an_earlier_promise() -> None:
    queue = Queue()
    queue.add(jobs=1000, deadline_unix_ms=NOW + 1000_000)

    # Room before it there is, but only at the cost of those thousand.
    assert not queue.quote(output_tokens=10_000, deadline_unix_ms=NOW + 500_000).is_accepted


def test_a_firm_quote_keeps_its_room_until_the_jobs_are_seen() -> None:
    queue = Queue()
    ask = {"jobs": 600, "output_tokens": 60_000, "deadline_unix_ms": NOW + 1000_000}
    assert queue.quote(**ask, is_firm=True).is_accepted
    assert not queue.quote(**{**ask, "tenant": "bob"}).is_accepted

    queue.add(jobs=600, deadline_unix_ms=NOW + 1000_000)

    assert not queue.quote(**{**ask, "tenant": "bob"}).is_accepted
    assert queue.quote(jobs=300, output_tokens=30_000, deadline_unix_ms=NOW + 1000_000).is_accepted


def test_a_firm_quote_that_nobody_uses_is_given_up_after_five_seconds() -> None:
    queue = Queue()
    ask = {"jobs": 600, "output_tokens": 60_000, "deadline_unix_ms": NOW + 1000_000}
    queue.quote(**ask, is_firm=True)

    assert queue.quote(now_ms=NOW + 5000, **ask).is_accepted


def test_nothing_is_refused_while_the_speed_is_unknown() -> None:
    promise = Queue().quote(capacity=Capacity(), jobs=10**6, deadline_unix_ms=NOW + 1000)

    assert promise.is_accepted
    assert promise.eta_unix_ms == 0


def test_a_quote_for_an_unknown_window_is_refused_with_the_reason() -> None:
    promise = Queue().quote(window="night")

    assert not promise.is_accepted
    assert "night" in promise.reason


def test_the_eta_of_a_light_tenant_does_not_count_the_whale() -> None:
    queue = Queue()
    queue.add("whale", 1000)

    light = queue.quote(tenant="ann", output_tokens=500)
    heavy = queue.quote(tenant="whale", output_tokens=500)

    # Five seconds of its own, five of the whale's beside them; and a thousand and five.
    assert light.eta_unix_ms - NOW == pytest.approx(10_000, abs=1000)
    assert heavy.eta_unix_ms - NOW == pytest.approx(1005_000, abs=1000)
    assert light.latest_unix_ms > light.eta_unix_ms


def test_latest_follows_what_forecasts_missed() -> None:
    queue = Queue()
    for _ in range(100):
        queue.backlog.observe_eta(1000.0, 1500.0)
    queue.add("whale", 1000)

    promise = queue.quote(tenant="whale")

    assert (promise.latest_unix_ms - NOW) / (promise.eta_unix_ms - NOW) == pytest.approx(1.5)
    assert queue.backlog.eta_error == pytest.approx(0.5)


def test_places_are_in_the_order_of_service() -> None:
    queue = Queue()
    queue.add("whale", 50)
    queue.add("ann", 3)
    queue.backlog.change(DispatchSettings(weights={"ann": 2.0}))

    places = queue.backlog.first("*", 20, NOW, CAPACITY)

    assert [place.position for place in places] == list(range(20))
    assert [place.seq for place in places][:6] == [
        place.seq for place in sorted(places, key=lambda one: one.eta_unix_ms)
    ][:6]
    assert {51, 52, 53} <= {place.seq for place in places[:6]}


def test_more_promised_than_can_be_kept_gives_up_the_largest_few() -> None:
    queue = Queue()
    small = queue.add(jobs=60, deadline_unix_ms=NOW + 70_000)
    large = queue.add(jobs=2, output_tokens_max=5000, deadline_unix_ms=NOW + 70_000)

    picked = queue.pick(60)

    assert set(picked) == set(small)
    assert queue.backlog.given_up >= 1
    assert queue.backlog.expire(NOW + 80_000) == large


def test_a_job_id_has_one_key_of_64_bits() -> None:
    assert key_of("a") == key_of("a") != key_of("b")
    assert 0 < key_of("x" * 90) < 2**64


def test_a_change_leaves_what_it_does_not_mention() -> None:
    before = DispatchSettings(weights={"a": 2.0}, paused_tenants=frozenset({"a", "b"}), is_pool_paused=True)

    after = changed(before, Change(weights={"b": 3.0}, resume_tenants=["a"], pause_batches=["x"]))

    assert after == DispatchSettings(
        weights={"a": 2.0, "b": 3.0},
        paused_tenants=frozenset({"b"}),
        paused_batches=frozenset({"x"}),
        is_pool_paused=True,
    )


def test_what_a_dispatcher_finds_is_in_the_order_of_what_comes() -> None:
    found, came = Backlog(DispatcherSection(), lambda *_: 7.0), Backlog(DispatcherSection(), lambda *_: 7.0)
    found.begin_load()
    for backlog in (found, came):
        for seq in range(1, 200):
            ticket = Ticket(prompt_tokens=seq % 7 + 1, deadline_unix_ms=(seq % 5 == 0) * (10_000 + seq))
            backlog.add(seq, list(Lane)[seq % 3], f"tenant-{seq * 7 % 11}", ticket, seq, 0)
    found.end_load()
    assert found.pick(1000, 1, Capacity()) == came.pick(1000, 1, Capacity())
