"""What the page shows, from what was heard."""

from __future__ import annotations

from producer.gateway.board import DECISIONS_KEPT, HISTORY_S, Board, Capacity, Report
from schemas.decision import Decision, Wish
from schemas.dispatch import Amount, Snapshot
from schemas.overview import PoolOverview


def report(tokens: int = 0, *, name: str = "a", started: int = 1000, **more: object) -> Report:
    capacity = Capacity(blocks_total=100, blocks_free=40, running=3, preemptions=2)
    return Report(consumer=name, pool="p", started_unix_ms=started, output_tokens=tokens, capacity=capacity, **more)  # type: ignore[arg-type]


def snapshot() -> Snapshot:
    return Snapshot(
        pool="p",
        dispatcher="d",
        unix_ms=1,
        lanes={"bulk": Amount(jobs=3, prompt_tokens=10, output_tokens=20, oldest_unix_ms=5000)},
        tenants={"ann": Amount(jobs=1, prompt_tokens=4, output_tokens=6), "bob": Amount(jobs=2)},
        tenants_total=2,
        paused=["bob", "batch:secret", "*"],
        jobs_per_s=float("inf"),
    )


def seen(board: Board, now_s: float, *, told: Snapshot | None = None, viewer: str = "") -> PoolOverview:
    return board.pool("p", now_s, told, viewer=viewer, closed="", with_history=True)


def always(_: str) -> bool:
    return True


def test_a_rate_is_what_came_lately_and_not_what_ever_came() -> None:
    board = Board()
    for half in range(21):
        board.note_report(report(1000 + 50 * half), half / 2)
    for half in range(21, 41):
        board.note_report(report(2050 + 5 * (half - 20)), half / 2)

    (consumer,) = seen(board, 20.0).consumers

    assert consumer.tokens_per_s == 10.0
    assert (consumer.kv_blocks_total, consumer.kv_blocks_free, consumer.running) == (100, 40, 3)


def test_a_consumer_that_started_again_under_its_name_makes_no_negative_rate() -> None:
    board = Board()
    board.note_report(report(90_000), 0.0)
    board.note_report(report(90_100), 0.5)
    board.note_report(report(0, started=2000), 1.0)
    board.note_report(report(5, started=2000), 1.5)

    assert seen(board, 1.5).tokens_per_s == 10.0


def test_who_is_silent_makes_nothing_and_who_left_is_gone() -> None:
    board = Board()
    board.note_report(report(0), 0.0)
    board.note_report(report(100), 1.0)

    assert seen(board, 1.0).tokens_per_s == 100.0
    assert seen(board, 30.0).tokens_per_s == 0.0
    assert seen(board, 30.0).consumers[0].age_s == 29.0

    board.tick(30.0, is_known=lambda _: False)
    assert seen(board, 30.0).consumers == []


def test_the_history_is_two_minutes_and_is_dropped_when_it_says_nothing() -> None:
    board = Board()
    board.note_report(report(0), 0.0)
    board.note_report(report(10), 1.0)
    for second in range(2 * HISTORY_S):
        board.note_report(report(10 * second), float(second))
        board.tick(float(second), is_known=always)

    assert seen(board, 240.0).history == [10.0] * HISTORY_S

    for second in range(HISTORY_S + 10):
        board.tick(1000.0 + second, is_known=always)
    assert seen(board, 2000.0).history == []


def test_whoever_may_see_all_sees_every_tenant_and_what_is_paused() -> None:
    pool = seen(Board(), 0.0, told=snapshot())

    assert set(pool.tenants) == {"ann", "bob"}
    assert (pool.paused, pool.is_paused) == (["bob", "batch:secret"], True)
    assert (pool.lanes["bulk"].tokens, pool.lanes["bulk"].oldest_at) == (30, 5.0)
    # JSON has no infinity.
    assert pool.jobs_per_s == 0.0


def test_a_tenant_sees_its_own_share_and_the_pools_totals_but_no_other_name() -> None:
    pool = seen(Board(), 0.0, told=snapshot(), viewer="ann")

    assert {name: amount.tokens for name, amount in pool.tenants.items()} == {"ann": 10}
    assert (pool.paused, pool.is_paused, pool.tenants_total) == ([], True, 1)
    assert pool.lanes["bulk"].jobs == 3


def test_a_tenant_with_nothing_waiting_sees_that() -> None:
    assert seen(Board(), 0.0, told=snapshot(), viewer="eve").tenants["eve"].jobs == 0


def test_decisions_are_newest_first_each_once_and_not_for_ever() -> None:
    board = Board()
    made = [Decision(pool="p", unix_ms=1000 * place, target=place) for place in range(DECISIONS_KEPT + 5)]
    for decision in [*made[10:], *made]:
        board.note_decision(decision)

    shown = board.decisions()

    assert [one.target for one in shown] == list(range(DECISIONS_KEPT + 4, 4, -1))


def test_an_old_decision_that_is_told_again_is_no_news() -> None:
    board = Board()
    made = [Decision(pool="p", unix_ms=1000 * place) for place in range(DECISIONS_KEPT + 5)]
    for decision in made:
        board.note_decision(decision)
    before = board.decisions_seen

    board.note_decision(made[0])

    assert board.decisions_seen == before


def test_the_reason_is_that_of_the_policy_that_had_its_way_and_what_the_guard_left_of_it() -> None:
    board = Board()
    wishes = [
        Wish(policy="schedule", reason="no window"),
        Wish(policy="a", reason="x", replicas=1),
        Wish(policy="b", reason="y", replicas=2),
    ]
    board.note_decision(Decision(pool="p", unix_ms=1, wishes=wishes, wanted=2, target=2))
    board.note_decision(Decision(pool="p", unix_ms=2, wishes=wishes, wanted=2, target=1, guard="at most 1"))

    assert [one.why for one in board.decisions()] == ["b: y; but at most 1", "b: y"]
