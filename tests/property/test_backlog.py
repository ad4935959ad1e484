"""The order of waiting jobs: random lives of a backlog, checked against a plain model of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.dispatch.backlog import Backlog, Capacity
from scaler.dispatch.neighbours import GROUP_MAX
from scaler.dispatch.settings import DispatchSettings
from schemas.backlog import Ticket
from schemas.config import DispatcherSection, WindowSection
from schemas.subjects import Lane

START_MS = 1_800_000_000_000
TENANTS = ["ann", "bob", "cy"]
BATCHES = ["", "b1", "b2"]
NIGHT = WindowSection(cron="0 * * * *", hours=0.5)
CAPACITIES = [Capacity(), Capacity(decode_tokens_per_s=50.0), Capacity(jobs_per_s=0.2, ahead_s=5.0)]


@dataclass
class Known:
    lane: Lane
    tenant: str
    ticket: Ticket
    state: str = "waiting"


@dataclass
class Life:
    """A backlog, what a dispatcher would know of it, and the time."""

    backlog: Backlog
    jobs: dict[int, Known] = field(default_factory=dict)
    settings: DispatchSettings = field(default_factory=DispatchSettings)
    now_ms: int = START_MS
    last_seq: int = 0

    def waiting(self) -> set[int]:
        return {seq for seq, job in self.jobs.items() if job.state == "waiting"}

    def moving(self) -> list[int]:
        return [seq for seq, job in self.jobs.items() if job.state == "moving"]

    def is_held(self, seq: int) -> bool:
        job = self.jobs[seq]
        return (
            self.settings.is_pool_paused
            or job.tenant in self.settings.paused_tenants
            or (job.ticket.batch in self.settings.paused_batches)
            or job.ticket.not_before_unix_ms > self.now_ms
            or (job.ticket.window == "night" and (self.now_ms // 1000) % 3600 >= 1800)
            or job.ticket.window == "unheard-of"
        )

    def is_late(self, seq: int) -> bool:
        return 0 < self.jobs[seq].ticket.deadline_unix_ms <= self.now_ms

    def took(self, seqs: list[int]) -> None:
        assert len(set(seqs)) == len(seqs)
        assert set(seqs) <= self.waiting()
        for seq in seqs:
            self.jobs[seq].state = "moving"

    def add(self, lane: Lane, tenant: str, ticket: Ticket, jobs: int) -> None:
        for _ in range(jobs):
            self.last_seq += 1
            self.backlog.add(self.last_seq, lane, tenant, ticket, self.last_seq + 1000, self.now_ms)
            self.jobs[self.last_seq] = Known(lane, tenant, ticket)

    def load(self, adds: list[tuple], gone: set[int]) -> None:
        """As a dispatcher begins: what waited before it came, some of it gone again before all was read."""
        self.backlog.begin_load()
        for _, lane, tenant, ticket, jobs in adds:
            self.add(lane, tenant, ticket, jobs)
            some = gone & self.jobs.keys()
            self.backlog.moved(some)
            for seq in some:
                del self.jobs[seq]
        self.backlog.end_load()

    def pick(self, jobs: int, capacity: Capacity) -> None:
        ready = {seq for seq in self.waiting() if not self.is_held(seq) and not self.is_late(seq)}
        picked = self.backlog.pick(jobs, self.now_ms, capacity)
        self.took(picked)
        assert set(picked) <= ready
        # A group that begins alike is not cut.
        assert min(jobs, len(ready)) <= len(picked) <= min(jobs + GROUP_MAX - 1, len(ready))

    def expire(self) -> None:
        # Held ones are looked for once a second.
        self.now_ms += 1000
        late = {seq for seq in self.waiting() if self.is_late(seq)}
        expired = self.backlog.expire(self.now_ms)
        self.took(expired)
        assert set(expired) == late

    def answer(self, share: float, *, is_moved: bool) -> None:
        moving = self.moving()
        some = moving[: int(len(moving) * share) + 1]
        if is_moved:
            self.backlog.moved(some)
            for seq in some:
                del self.jobs[seq]
        else:
            self.backlog.put_back(some)
            for seq in some:
                self.jobs[seq].state = "waiting"

    def cancel(self, tenant: str, batch: str, keys: set[int]) -> None:
        mine = {seq for seq in self.waiting() if self.jobs[seq].tenant == tenant}
        if keys:
            expected = {seq for seq in mine if seq + 1000 in keys}
            cancelled = self.backlog.cancel_jobs(tenant, keys)
        elif batch:
            expected = {seq for seq in mine if self.jobs[seq].ticket.batch == batch}
            cancelled = self.backlog.cancel_batch(tenant, batch)
        else:
            expected, cancelled = mine, self.backlog.cancel_tenant(tenant)
        self.took(cancelled)
        assert set(cancelled) == expected

    def check(self) -> None:
        """Sums, places and lookups agree with what is known."""
        self.expire()
        waiting = self.waiting()
        assert len(self.backlog) == len(waiting)
        amounts = self.backlog.amounts(self.now_ms)
        assert sum(amount.jobs for amount in amounts.lanes.values()) + amounts.held.jobs == len(waiting)
        prompts = sum(amount.prompt_tokens for amount in amounts.lanes.values()) + amounts.held.prompt_tokens
        assert prompts == sum(self.jobs[seq].ticket.prompt_tokens for seq in waiting)
        places = self.backlog.first("*", 10_000, self.now_ms, CAPACITIES[1])
        assert sorted(place.seq for place in places) == sorted(waiting)
        assert {place.seq for place in places if place.state == "held"} == {s for s in waiting if self.is_held(s)}
        assert all(place.why_held for place in places if place.state == "held")
        dated = [seq for seq in waiting if self._is_demand(seq)]
        assert sum(due.jobs for due in amounts.due) == len(dated)
        assert sum(due.output_tokens for due in amounts.due) == 7 * len(dated)
        for tenant in TENANTS:
            mine = {seq + 1000: seq for seq, job in self.jobs.items() if job.tenant == tenant}
            assert self.backlog.find(tenant, list(mine)) == mine

    def _is_demand(self, seq: int) -> bool:
        job = self.jobs[seq]
        is_paused = job.tenant in self.settings.paused_tenants or job.ticket.batch in self.settings.paused_batches
        return bool(job.ticket.deadline_unix_ms) and not is_paused


tickets = st.builds(
    Ticket,
    prompt_tokens=st.integers(0, 5000),
    deadline_unix_ms=st.just(0) | st.integers(START_MS, START_MS + 4_000_000),
    not_before_unix_ms=st.just(0) | st.integers(START_MS, START_MS + 4_000_000),
    prefix_key=st.integers(0, 2),
    batch=st.sampled_from(BATCHES),
    window=st.sampled_from(["", "", "night", "unheard-of"]),
)
adds = st.tuples(st.just("add"), st.sampled_from(list(Lane)), st.sampled_from(TENANTS), tickets, st.integers(1, 30))
acts = st.one_of(
    adds,
    st.tuples(st.just("pick"), st.integers(1, 40), st.sampled_from(CAPACITIES)),
    st.tuples(st.just("moved"), st.floats(0, 1)),
    st.tuples(st.just("put_back"), st.floats(0, 1)),
    st.tuples(st.just("cancel"), st.sampled_from(TENANTS), st.sampled_from(BATCHES), st.just(set())),
    st.tuples(st.just("cancel"), st.sampled_from(TENANTS), st.just(""), st.sets(st.integers(1001, 1200), max_size=9)),
    st.tuples(
        st.just("change"), st.sets(st.sampled_from(TENANTS)), st.sets(st.sampled_from(BATCHES[1:])), st.booleans()
    ),
    st.tuples(st.just("wait"), st.integers(1000, 2_000_000)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("squeeze")),
)


def _act(life: Life, act: tuple) -> None:
    match act:
        case ("add", lane, tenant, ticket, jobs):
            life.add(lane, tenant, ticket, jobs)
        case ("pick", jobs, capacity):
            life.pick(jobs, capacity)
        case ("moved", share):
            life.answer(share, is_moved=True)
        case ("put_back", share):
            life.answer(share, is_moved=False)
        case ("cancel", tenant, batch, keys):
            life.cancel(tenant, batch, keys)
        case ("change", tenants, batches, is_pool_paused):
            life.settings = DispatchSettings(
                weights=dict.fromkeys(tenants, 2.0),
                paused_tenants=frozenset(tenants),
                paused_batches=frozenset(batches),
                is_pool_paused=is_pool_paused,
            )
            life.backlog.change(life.settings)
        case ("wait", ms):
            life.now_ms += ms
            life.expire()
        case ("expire",):
            life.expire()
        case _:
            life.backlog._index.squeeze()


@pytest.mark.parametrize("few", [0, 2000])
def test_nothing_is_lost_or_picked_twice_and_nothing_held_or_late_is_picked(few: int, monkeypatch) -> None:
    # Both ways: job by job, and all lists at once; and rows squeezed out early.
    monkeypatch.setattr("scaler.dispatch.index._FEW", few)
    monkeypatch.setattr("scaler.dispatch.index._DEAD_MIN", 3)
    monkeypatch.setattr("scaler.dispatch.index._ROWS_AT_ONCE", 20)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(adds, max_size=5), st.sets(st.integers(1, 60)), st.lists(acts, max_size=30))
    def lives(found: list[tuple], gone: set[int], steps: list[tuple]) -> None:
        life = Life(Backlog(DispatcherSection(windows={"night": NIGHT}), lambda _tenant, _lane, _most: 7.0))
        life.load(found, gone)
        life.check()
        for act in steps:
            _act(life, act)
            life.check()
        life.settings = DispatchSettings()
        life.backlog.change(life.settings)
        life.answer(1.0, is_moved=False)
        life.expire()
        life.pick(len(life.jobs) + 1, CAPACITIES[1])
        life.check()

    lives()
