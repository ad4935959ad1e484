from consumer.pull_plan import LaneState, Pull, Room, may_ask, plan_pulls
from schemas.subjects import Lane


def lanes(**states: LaneState) -> dict[Lane, LaneState]:
    return {lane: states.get(lane.value, LaneState(is_active=False, outstanding=1)) for lane in Lane}


def test_the_most_urgent_lane_that_may_hold_jobs_is_asked_for_all_the_room() -> None:
    plan = plan_pulls(Room(8), lanes(interactive=LaneState(), bulk=LaneState()), 256)

    assert plan == [Pull(Lane.INTERACTIVE, 8, waits=False)]


def test_an_empty_lane_keeps_one_standing_request() -> None:
    plan = plan_pulls(Room(4), lanes(standard=LaneState(is_active=False)), 256)

    assert plan == [Pull(Lane.STANDARD, 1, waits=True)]


def test_standing_requests_ask_for_half_of_the_room_together() -> None:
    plan = plan_pulls(Room(48), {lane: LaneState(is_active=False) for lane in Lane}, 256)

    assert plan == [Pull(lane, 8, waits=True) for lane in Lane]
    assert plan_pulls(Room(10_000), lanes(bulk=LaneState(is_active=False)), 256) == [Pull(Lane.BULK, 16, waits=True)]


def test_nothing_is_asked_without_room() -> None:
    assert plan_pulls(Room(0), {lane: LaneState() for lane in Lane}, 256) == []


def test_what_is_on_its_way_takes_room() -> None:
    plan = plan_pulls(Room(8), lanes(interactive=LaneState(outstanding=5), bulk=LaneState()), 256)

    assert plan == [Pull(Lane.BULK, 3, waits=False)]


def test_a_request_never_exceeds_the_batch_limit() -> None:
    plan = plan_pulls(Room(1000), lanes(bulk=LaneState()), 256)

    assert plan == [Pull(Lane.BULK, 256, waits=False)]


def test_while_every_lane_has_a_request_out_the_room_need_not_be_counted() -> None:
    assert not may_ask(lanes())
    assert may_ask(lanes(bulk=LaneState(is_active=False)))


def test_a_full_consumer_asks_for_interactive_jobs_and_no_others() -> None:
    full = Room(0, interactive_beyond=8)

    assert plan_pulls(full, {lane: LaneState() for lane in Lane}, 256) == [Pull(Lane.INTERACTIVE, 8, waits=False)]
    empty = {lane: LaneState(is_active=False) for lane in Lane}
    assert plan_pulls(full, empty, 256) == [Pull(Lane.INTERACTIVE, 8, waits=True)]


def test_room_that_is_kept_for_interactive_jobs_is_not_offered_to_others() -> None:
    kept = Room(20, other_jobs=2)

    assert plan_pulls(kept, lanes(bulk=LaneState()), 256) == [Pull(Lane.BULK, 2, waits=False)]
    assert plan_pulls(kept, lanes(interactive=LaneState()), 256) == [Pull(Lane.INTERACTIVE, 20, waits=False)]
    assert plan_pulls(Room(20, other_jobs=0), lanes(bulk=LaneState()), 256) == []
