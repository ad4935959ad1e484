from __future__ import annotations

from typing import Any

from scaler.drivers.port import Fleet, Replica
from scaler.live.learned import Learned
from scaler.live.observe import Observer, ObserverSettings
from scaler.live.reports import EngineFigures, LaneWork, Pace, Report, StepCost, Worked
from scaler.live.seen import InReady, ReadyLane, Seen
from scaler.live.settings import WAITS_S
from schemas.dispatch import Amount, DueAmount, Snapshot

NOW_S = 1_800_000_000.0


def an_observer(**settings: Any) -> Observer:
    fields = {"pool": "p", "cold_start_s": 60.0, "waits_s": WAITS_S, **settings}
    return Observer(ObserverSettings(**fields), Learned())


def a_replica(name: str, *, asked_s: float = NOW_S - 100, **fields: Any) -> Replica:
    return Replica(id=name, consumer=name, asked_unix_ms=int(asked_s * 1000), **{"phase": "running", **fields})


def a_report(name: str, *, standard: LaneWork | None = None, **fields: Any) -> Report:
    lanes = {"standard": standard} if standard else {}
    worked = Worked(prompt_tokens=100, output_tokens=50, lanes=lanes)
    return Report(consumer=name, started_unix_ms=1, **{"worked": worked, **fields})


def seen(now_s: float = NOW_S, *, replicas: list[Replica] | None = None, **fields: Any) -> Seen:
    standard = fields.pop("standard", ReadyLane())
    interactive = fields.pop("interactive", ReadyLane())
    values: dict[str, Any] = {
        "unix_s": now_s,
        "lanes": {"standard": standard, "interactive": interactive},
        "lanes_unix_s": now_s,
        "fleet": Fleet(pool="p", unix_ms=int(now_s * 1000), replicas=replicas or []),
        "own": frozenset(one.consumer for one in replicas or []),
        **fields,
    }
    return Seen(**values)


def test_a_replica_is_ready_when_it_is_heard_and_starting_until_then() -> None:
    replicas = [a_replica("a"), a_replica("b", asked_s=NOW_S - 7), a_replica("c", phase="draining")]

    observation = an_observer().look(seen(replicas=replicas, reports={"a": a_report("a")}))

    assert (observation.ready, observation.starting_s, observation.draining) == (1, [7.0], 1)


def test_a_replica_whose_name_nobody_knows_is_as_ready_as_its_platform_says() -> None:
    replicas = [Replica(id="x", phase="running"), Replica(id="y", asked_unix_ms=int((NOW_S - 3) * 1000))]

    observation = an_observer().look(seen(replicas=replicas))

    assert (observation.ready, observation.starting_s) == (1, [3.0])


def test_a_consumer_that_somebody_else_started_counts_too() -> None:
    reports = {"a": a_report("a"), "by-hand": a_report("by-hand")}

    assert an_observer().look(seen(replicas=[a_replica("a")], reports=reports)).ready == 2


def test_a_replica_that_was_the_drivers_and_still_echoes_is_nobody() -> None:
    look = seen(replicas=[], reports={"gone": a_report("gone")}, own=frozenset({"gone"}))

    assert an_observer().look(look).ready == 0


def test_what_is_delivered_to_nobody_alive_waits() -> None:
    look = seen(standard=ReadyLane(pending=3, in_flight=2))

    observation = an_observer().look(look)

    assert observation.waiting_jobs == 5
    assert observation.impatient_jobs == 5


def test_arrivals_are_what_waits_more_and_what_began_meanwhile() -> None:
    observer = an_observer()
    before, after = LaneWork(started=10, left=8), LaneWork(started=17, left=10)
    observer.look(seen(standard=ReadyLane(pending=4, in_flight=2), reports={"a": a_report("a", standard=before)}))

    observation = observer.look(
        seen(NOW_S + 5, standard=ReadyLane(pending=2, in_flight=7), reports={"a": a_report("a", standard=after)})
    )

    # Seven began; of the four that waited two are left.
    assert observation.arrived["standard"].jobs == 5
    assert observation.tick_s == 5


def test_counts_that_are_a_moment_apart_invent_no_arrivals() -> None:
    observer = an_observer()
    idle = a_report("a", standard=LaneWork(started=5, left=5))
    observer.look(seen(standard=ReadyLane(pending=1), reports={"a": idle}))
    # It was pulled, which telemetry does not say yet as begun; then it has begun.
    began = a_report("a", standard=LaneWork(started=6, left=5))
    first = observer.look(seen(NOW_S + 1, standard=ReadyLane(in_flight=0), reports={"a": idle}))
    second = observer.look(seen(NOW_S + 2, standard=ReadyLane(in_flight=1), reports={"a": began}))

    assert sum(one.arrived["standard"].jobs for one in (first, second) if "standard" in one.arrived) == 0


def test_a_restart_of_the_scaler_takes_nothing_for_new() -> None:
    look = seen(standard=ReadyLane(pending=100), reports={"a": a_report("a", standard=LaneWork(started=50, left=50))})

    observation = an_observer().look(look)

    assert observation.arrived == {}
    assert observation.processed.output == 0


def test_rates_come_from_what_steps_cost() -> None:
    cost = StepCost(0.01, 0.001, 0.0001)
    figures = EngineFigures(
        blocks_total=10_000, block_size=16, sequences_max=10, step_s=0.02, step_tokens_max=1000, cost=cost
    )

    observation = an_observer().look(seen(replicas=[a_replica("a")], reports={"a": a_report("a", capacity=figures)}))

    # Ten sequences a step of 20 ms; a thousand prompt tokens a step of 110 ms.
    assert round(observation.decode_tokens_per_s) == 500
    assert round(observation.prefill_tokens_per_s) == 9091


def test_a_cold_start_is_measured_from_asked_to_heard() -> None:
    observer = an_observer()
    replica = a_replica("a", asked_s=NOW_S, phase="starting")
    observer.look(seen(NOW_S + 1, replicas=[replica]))

    observation = observer.look(
        seen(NOW_S + 50, replicas=[replica], reports={"a": a_report("a")}, first_heard_s={"a": NOW_S + 42.0})
    )

    assert observer.learned.cold_starts_s == [42.0]
    assert observation.cold_start_s == 42.0


def test_neither_restarts_nor_replicas_that_were_there_before_measure_cold_starts() -> None:
    observer = an_observer()
    again = a_replica("again", restarts=1, phase="starting")
    observer.look(seen(NOW_S, replicas=[again]))

    heard = {"again": NOW_S + 1, "old": NOW_S + 1}
    reports = {"again": a_report("again"), "old": a_report("old")}
    observer.look(seen(NOW_S + 2, replicas=[again, a_replica("old")], reports=reports, first_heard_s=heard))

    assert observer.learned.cold_starts_s == []


def test_a_start_that_takes_longer_than_all_before_is_believed_within_limits() -> None:
    observer = an_observer(cold_start_s=10.0)

    assert observer.look(seen(replicas=[a_replica("a", asked_s=NOW_S - 30, phase="starting")])).cold_start_s == 30
    assert observer.look(seen(replicas=[a_replica("a", asked_s=NOW_S - 3000, phase="starting")])).cold_start_s == 50


def test_a_backlog_of_which_nobody_tells_makes_the_look_old() -> None:
    observer = an_observer()
    blind = {"backlog_jobs": 5, "snapshot": None}

    assert observer.look(seen(NOW_S, **blind)).age_s == 3
    assert observer.look(seen(NOW_S + 40, **blind)).age_s == 43


def test_without_a_backlog_nobody_need_tell_of_it() -> None:
    snapshot = Snapshot(pool="p", dispatcher="d", unix_ms=0, lanes={"standard": Amount(jobs=9)})
    old = {"backlog_jobs": 0, "snapshot": snapshot, "snapshot_unix_s": NOW_S - 500}

    observation = an_observer().look(seen(NOW_S, **old))

    assert (observation.age_s, observation.waiting_jobs) == (0, 0)


def test_counts_that_could_not_be_renewed_make_the_look_old() -> None:
    assert an_observer().look(seen(NOW_S, lanes_unix_s=NOW_S - 33)).age_s == 33


def test_the_backlog_is_due_by_its_deadlines_and_what_has_none_by_its_lane() -> None:
    oldest_ms = int((NOW_S - 600) * 1000)
    snapshot = Snapshot(
        pool="p",
        dispatcher="d",
        unix_ms=0,
        lanes={"bulk": Amount(jobs=10, prompt_tokens=1000, output_tokens=500, oldest_unix_ms=oldest_ms)},
        due=[DueAmount(deadline_unix_ms=int((NOW_S + 300) * 1000), jobs=4, prompt_tokens=400, output_tokens=200)],
    )

    observation = an_observer().look(seen(backlog_jobs=10, snapshot=snapshot, snapshot_unix_s=NOW_S))

    dated, undated = observation.due
    assert (dated.tokens.jobs, dated.deadline_unix_s, dated.window_s) == (4, NOW_S + 300, 900)
    assert (undated.tokens.jobs, undated.tokens.prompt) == (6, 600)
    assert undated.deadline_unix_s == NOW_S - 600 + WAITS_S["bulk"]
    assert observation.impatient_jobs == 6


def test_a_job_with_a_deadline_at_the_head_of_ready_may_be_waited_with() -> None:
    first = [InReady(lane="standard", prompt_tokens=40, output_tokens_max=10, deadline_unix_ms=int(NOW_S + 900) * 1000)]

    observation = an_observer().look(seen(standard=ReadyLane(pending=1), first=first))

    assert observation.impatient_jobs == 0
    assert (observation.due[0].deadline_unix_s, observation.due[0].tokens.prompt) == (NOW_S + 900, 40)
    assert observation.due[0].tokens.output == 10


def test_what_runs_is_what_consumers_say_is_left() -> None:
    report = a_report("a", pace=Pace(running=3, remaining_tokens=700))

    observation = an_observer().look(seen(replicas=[a_replica("a")], reports={"a": report}))

    assert (observation.running.jobs, observation.running.output) == (3, 700)


def test_gpu_hours_are_counted_from_midnight_for_all_there_are() -> None:
    observer = an_observer(gpus_per_replica=2.0)
    midnight = 86400.0 * 20_000
    replicas = [a_replica("a"), a_replica("b", phase="draining")]
    observer.look(seen(midnight - 1800, replicas=replicas))
    assert observer.look(seen(midnight - 900, replicas=replicas)).gpu_hours_today == 1.0
    assert observer.look(seen(midnight + 900, replicas=replicas)).gpu_hours_today == 2.0
    assert observer.look(seen(midnight + 1800, replicas=[])).gpu_hours_today == 2.0
