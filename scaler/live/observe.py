"""From one look at a pool to what its policies may know. Keeps what "since the look before" needs. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from scaler.drivers.port import Replica
from scaler.live.learned import Learned, Mean
from scaler.live.reports import LaneWork, Report, Worked
from scaler.live.seen import Seen
from scaler.live.waiting import Waiting, waiting_of
from scaler.observation import INTERACTIVE, Observation, Tokens
from schemas.dispatch import Snapshot

# Lanes whose jobs may wait so long at most count as short.
_SHORT_S = 7200.0
# Where no consumer has said how fast it is.
_PREFILL_TOKENS_PER_S, _DECODE_TOKENS_PER_S = 2000.0, 1400.0
# A start that hangs is not waited for like one that is slow.
_LONGER_MOST = 5.0
# A snapshot is published every second.
_SNAPSHOT_FRESH_S = 3.0
# What telemetry and the broker's counts, a little apart in time, may make jobs seem to leave and come.
_SKEW_JOBS = 16


class ObserverSettings(msgspec.Struct, frozen=True, kw_only=True):
    pool: str
    cold_start_s: float
    # What jobs without a deadline may wait.
    waits_s: Mapping[str, float]
    gpus_per_replica: float = 1.0


class Observer:
    """Of one pool."""

    def __init__(self, settings: ObserverSettings, learned: Learned) -> None:
        self._settings = settings
        self.learned = learned
        # When the backlog could not be known since.
        self._blind_since_s: float | None = None
        self._looked_s: float | None = None
        self._waiting: dict[str, int] = {}
        self._owed: dict[str, int] = {}
        self._worked: dict[tuple[str, int], Worked] = {}
        self._had_queue = False
        self._awaited: set[str] = set()

    def look(self, seen: Seen) -> Observation:
        s, learned = self._settings, self.learned
        tick_s = seen.unix_s - self._looked_s if self._looked_s is not None else 0.0
        ready = [report for report in seen.reports.values() if not report.is_draining]
        started, processed = self._progress(seen.reports)
        learned.note_rates(ready)
        self._measure_starts(seen)
        snapshot = self._fresh_snapshot(seen)
        waiting = waiting_of(seen, snapshot, self._running_by_lane(seen.reports), self._mean, s.waits_s)
        arrived = self._arrived(waiting, started, tick_s)
        staying = [one for one in seen.fleet.replicas if one.phase != "draining"]
        names = {report.consumer for report in ready}
        starting_s = [seen.unix_s - one.asked_unix_ms / 1000 for one in staying if not _is_ready(one, names)]
        draining = len(seen.fleet.replicas) - len(staying)
        learned.note_gpus(s.gpus_per_replica * len(seen.fleet.replicas), tick_s, seen.unix_s)
        has_queue = waiting.jobs > len(ready) > 0
        is_saturated = has_queue and self._had_queue
        self._had_queue, self._looked_s = has_queue, seen.unix_s
        return Observation(
            pool=s.pool,
            unix_s=seen.unix_s,
            tick_s=tick_s,
            age_s=self._age_s(seen, snapshot),
            ready=len(staying) - len(starting_s) + len(names - seen.own),
            starting_s=starting_s,
            draining=draining,
            crash_looping=seen.crash_looping,
            interactive_waiting=waiting.interactive,
            due=waiting.due,
            impatient_jobs=waiting.impatient_jobs,
            running=Tokens(
                jobs=sum(report.pace.running for report in seen.reports.values()),
                output=float(sum(report.pace.remaining_tokens for report in seen.reports.values())),
            ),
            arrived=arrived,
            processed=processed,
            is_saturated=is_saturated,
            prefill_tokens_per_s=learned.prefill_tokens_per_s or _PREFILL_TOKENS_PER_S,
            decode_tokens_per_s=learned.decode_tokens_per_s or _DECODE_TOKENS_PER_S,
            cold_start_s=self._cold_start_s(starting_s),
            service_p95_s=learned.service_p95_s,
            short_lanes=[lane for lane, wait_s in s.waits_s.items() if wait_s <= _SHORT_S],
            interactive_window_s=s.waits_s[INTERACTIVE],
            gpu_hours_today=learned.gpu_s / 3600,
        )

    def _cold_start_s(self, starting_s: list[float]) -> float:
        """A start that takes longer than all before it is known to take as long as it took until now."""
        usual_s = self.learned.cold_start_s(self._settings.cold_start_s)
        return max(usual_s, min(max(starting_s, default=0.0), _LONGER_MOST * usual_s))

    def _fresh_snapshot(self, seen: Seen) -> Snapshot | None:
        """Without a job in BACKLOG, what a dispatcher last said of it is over."""
        if seen.snapshot is None or not seen.backlog_jobs:
            return None
        return seen.snapshot

    def _age_s(self, seen: Seen, snapshot: Snapshot | None) -> float:
        """Of the oldest thing that this look is made of."""
        told_s = min(seen.lanes_unix_s, seen.fleet.unix_ms / 1000)
        if seen.backlog_jobs and seen.snapshot_unix_s < seen.unix_s - _SNAPSHOT_FRESH_S:
            # Nobody tells what it holds: as old as what was told last, or as long as we have been asking.
            if self._blind_since_s is None:
                self._blind_since_s = seen.unix_s - _SNAPSHOT_FRESH_S
            told_s = min(told_s, seen.snapshot_unix_s if snapshot else self._blind_since_s)
        else:
            self._blind_since_s = None
        return max(0.0, seen.unix_s - told_s)

    def _progress(self, reports: Mapping[str, Report]) -> tuple[dict[str, int], Tokens]:
        """Jobs started by lane, and tokens processed, since the look before."""
        started: dict[str, int] = {}
        prompt = output = 0
        known: dict[tuple[str, int], Worked] = {}
        for report in reports.values():
            key, now = (report.consumer, report.started_unix_ms), report.worked
            known[key] = now
            before = self._worked.get(key)
            if before is None:
                # All that it ever did, or nothing where we have just begun to look ourselves.
                before = Worked() if self._looked_s is not None else now
            prompt += max(0, now.prompt_tokens - before.prompt_tokens)
            output += max(0, now.output_tokens - before.output_tokens)
            for lane, work in now.lanes.items():
                was = before.lanes.get(lane, LaneWork())
                started[lane] = started.get(lane, 0) + work.started - was.started
                self.learned.note_jobs(lane, was, work)
        self._worked = known
        return started, Tokens(prompt=float(prompt), output=float(output))

    def _arrived(self, waiting: Waiting, started: dict[str, int], tick_s: float) -> dict[str, Tokens]:
        """What waits more than before, and what began meanwhile, must have come."""
        before, self._waiting = self._waiting, dict(waiting.by_lane)
        arrived: dict[str, Tokens] = {}
        if not tick_s:
            return arrived
        for lane, now in waiting.by_lane.items():
            jobs = now - before.get(lane, 0) + started.get(lane, 0) + self._owed.get(lane, 0)
            self._owed[lane] = max(-_SKEW_JOBS, min(0, jobs))
            if jobs > 0:
                mean = self._mean(lane)
                arrived[lane] = Tokens(jobs=jobs, prompt=jobs * mean.prompt, output=jobs * mean.output)
        return arrived

    def _measure_starts(self, seen: Seen) -> None:
        """From being asked for to being heard; only of those that we saw before they could be heard."""
        awaited: set[str] = set()
        for one in seen.fleet.replicas:
            if one.restarts or one.phase == "draining" or not one.consumer:
                continue
            heard_s = seen.first_heard_s.get(one.consumer)
            if heard_s is None:
                awaited.add(one.consumer)
            elif one.consumer in self._awaited:
                self.learned.note_cold_start(max(0.1, heard_s - one.asked_unix_ms / 1000))
        self._awaited = awaited

    def expect(self, consumers: set[str]) -> None:
        """They were asked for just now; one may be heard before the next look."""
        self._awaited |= consumers

    @staticmethod
    def _running_by_lane(reports: Mapping[str, Report]) -> dict[str, int]:
        running: dict[str, int] = {}
        for report in reports.values():
            for lane, work in report.worked.lanes.items():
                running[lane] = running.get(lane, 0) + work.started - work.left
        return running

    def _mean(self, lane: str) -> Mean:
        """The lane's, or any other's, or a guess."""
        known = self.learned.lanes.get(lane)
        return known or next(iter(self.learned.lanes.values()), Mean())


def _is_ready(replica: Replica, heard: set[str]) -> bool:
    """As it says itself; where nobody knows its name, as its platform does."""
    return replica.consumer in heard if replica.consumer else replica.phase == "running"
