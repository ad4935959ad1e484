"""What the page shows, gathered from telemetry, the dispatchers' snapshots and the scaler's decisions. Pure: time is
passed in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from schemas import overview
from schemas.decision import Decision, sentences
from schemas.dispatch import Snapshot
from schemas.overview import ConsumerView, DecisionView, PoolOverview, Waiting

DECISIONS_KEPT = 50
HISTORY_S = 120
# A rate is told over so long; of a consumer that speaks seldom, over a few of its words.
_RATE_S = 3.0
_RATE_INTERVALS = 3
# Whoever has not spoken for so many intervals makes nothing now, as far as anybody knows.
_SILENT_INTERVALS = 6
# Its key in the directory may come a moment after its first word here.
_NEW_S = 2.0
_ALL = "*"
_BATCH = "batch:"


class Capacity(msgspec.Struct, frozen=True):
    blocks_total: int = 0
    blocks_free: int = 0
    running: int = 0
    preemptions: int = 0
    context_tokens_max: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0


class Report(msgspec.Struct, frozen=True):
    """A consumer's telemetry, as far as it is shown."""

    consumer: str = ""
    pool: str = ""
    models: list[str] = []
    started_unix_ms: int = 0
    at_door: int = 0
    # Since it started.
    output_tokens: int = 0
    backlog: int = 0
    is_draining: bool = False
    every_s: float = 0.5
    capacity: Capacity = Capacity()


class _Heard(msgspec.Struct):
    report: Report
    since_s: float
    at_s: float
    # When, and how many tokens it had made by then.
    counts: deque[tuple[float, int]]


class Board:
    """`note_*` what is heard, `tick` every second, and `pool` or `decisions` to look."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._history: dict[str, deque[float]] = {}
        self._decisions: list[Decision] = []
        # Grows with each news of a decision.
        self.decisions_seen = 0

    def note_report(self, report: Report, now_s: float) -> None:
        if not report.pool or not report.consumer:
            return
        key = f"{report.pool}.{report.consumer}"
        heard = self._heard.get(key)
        if heard is None or heard.report.started_unix_ms != report.started_unix_ms:
            heard = self._heard[key] = _Heard(report, now_s, now_s, deque())
        heard.report, heard.at_s = report, now_s
        heard.counts.append((now_s, report.output_tokens))
        oldest_s = now_s - max(_RATE_S, _RATE_INTERVALS * report.every_s)
        while len(heard.counts) > 2 and heard.counts[1][0] <= oldest_s:
            heard.counts.popleft()

    def note_decision(self, decision: Decision) -> None:
        """In any order, and more than once: reading again after a reconnect tells what was heard already."""
        if decision in self._decisions:
            return
        newest_last = sorted([*self._decisions, decision], key=lambda one: one.unix_ms)[-DECISIONS_KEPT:]
        if newest_last != self._decisions:
            self._decisions = newest_last
            self.decisions_seen += 1

    def tick(self, now_s: float, *, is_known: Callable[[str], bool]) -> None:
        """Forgets who left, and notes the rates of this second. `is_known`: whether `pool.consumer` still lives."""
        self._heard = {
            key: heard for key, heard in self._heard.items() if is_known(key) or now_s - heard.since_s < _NEW_S
        }
        for pool in {heard.report.pool for heard in self._heard.values()} | set(self._history):
            history = self._history.setdefault(pool, deque(maxlen=HISTORY_S))
            history.append(round(sum(_rate(heard, now_s) for heard in self._of(pool)), 1))
            if not any(history):
                # It has been quiet for as long as anybody remembers.
                del self._history[pool]

    def pools(self) -> set[str]:
        return {heard.report.pool for heard in self._heard.values()}

    def pool(
        self, name: str, now_s: float, snapshot: Snapshot | None, *, viewer: str, closed: str, with_history: bool
    ) -> PoolOverview:
        """`viewer`: the tenant who looks; empty for whoever may see all."""
        heard = sorted(self._of(name), key=lambda one: (one.report.started_unix_ms, one.report.consumer))
        speaking = [one for one in heard if not _is_silent(one, now_s)]
        there = PoolOverview(
            pool=name,
            models=sorted({model for one in heard for model in one.report.models}),
            consumers=[_consumer_view(one, now_s) for one in heard],
            ready=max((one.report.backlog for one in speaking), default=0),
            tokens_per_s=round(sum(_rate(one, now_s) for one in speaking), 1),
            closed=closed,
            history=list(self._history.get(name, ())) if with_history else [],
        )
        return there if snapshot is None else _with_backlog(there, snapshot, viewer)

    def decisions(self) -> list[DecisionView]:
        """Newest first."""
        return [_decision_view(one) for one in reversed(self._decisions)]

    def _of(self, pool: str) -> Iterable[_Heard]:
        return [heard for heard in self._heard.values() if heard.report.pool == pool]


def _rate(heard: _Heard, now_s: float) -> float:
    if len(heard.counts) < 2 or _is_silent(heard, now_s):
        return 0.0
    (first_s, first), (last_s, last) = heard.counts[0], heard.counts[-1]
    return max(0.0, (last - first) / (last_s - first_s)) if last_s > first_s else 0.0


def _is_silent(heard: _Heard, now_s: float) -> bool:
    return now_s - heard.at_s > max(1.0, heard.report.every_s) * _SILENT_INTERVALS


def _consumer_view(heard: _Heard, now_s: float) -> ConsumerView:
    report, capacity = heard.report, heard.report.capacity
    queried = capacity.prefix_query_tokens
    return ConsumerView(
        consumer=report.consumer,
        models=report.models,
        started_at=report.started_unix_ms / 1000,
        age_s=round(max(0.0, now_s - heard.at_s), 1),
        is_draining=report.is_draining,
        kv_blocks_total=capacity.blocks_total,
        kv_blocks_free=capacity.blocks_free,
        running=capacity.running,
        at_door=report.at_door,
        tokens_per_s=round(_rate(heard, now_s), 1),
        preemptions=capacity.preemptions,
        context_tokens_max=capacity.context_tokens_max,
        prefix_hit_share=round(capacity.prefix_hit_tokens / queried, 3) if queried else 0.0,
    )


def _with_backlog(there: PoolOverview, snapshot: Snapshot, viewer: str) -> PoolOverview:
    tenants = {name: overview.waiting_of(amount) for name, amount in snapshot.tenants.items()}
    paused = [name for name in snapshot.paused if name != _ALL]
    if viewer:
        tenants = {viewer: tenants.get(viewer, Waiting())}
        # A batch's name is its tenant's, and a snapshot does not say whose it is.
        paused = [name for name in paused if name == viewer and not name.startswith(_BATCH)]
    return msgspec.structs.replace(
        there,
        dispatcher=snapshot.dispatcher,
        lanes={name: overview.waiting_of(amount) for name, amount in snapshot.lanes.items()},
        held=overview.waiting_of(snapshot.held),
        tenants=tenants,
        tenants_total=len(tenants) if viewer else snapshot.tenants_total,
        in_ready=overview.waiting_of(snapshot.in_ready),
        jobs_per_s=_finite(snapshot.jobs_per_s),
        prefill_tokens_per_s=_finite(snapshot.prefill_tokens_per_s),
        decode_tokens_per_s=_finite(snapshot.decode_tokens_per_s),
        is_paused=_ALL in snapshot.paused,
        paused=paused,
    )


def _finite(value: float) -> float:
    return round(value, 2) if math.isfinite(value) else 0.0


def _decision_view(decision: Decision) -> DecisionView:
    return DecisionView(
        pool=decision.pool,
        at=decision.unix_ms / 1000,
        action=decision.action,
        count=decision.count,
        target=decision.target,
        why=_why(decision),
        sentences=sentences(decision),
    )


def _why(decision: Decision) -> str:
    wishes = [wish for wish in decision.wishes if wish.replicas is not None]
    decisive = [wish for wish in wishes if wish.replicas == decision.wanted]
    reasons = [f"{wish.policy}: {wish.reason}" for wish in [*decisive, *wishes]][:1]
    return "; but ".join([*reasons, decision.guard] if decision.guard else reasons)
