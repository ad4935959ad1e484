from __future__ import annotations

import pytest

from producer.routing import (
    FOUND_REMEMBERED_S,
    HELD_BACK_REMEMBERED_S,
    NONE_REMEMBERED_S,
    Backlogs,
    Route,
    needs_backlog_known,
    route,
)
from schemas.subjects import Lane


@pytest.mark.parametrize("lane", list(Lane))
def test_without_a_backlog_everything_goes_to_the_consumers_as_ever(lane: Lane) -> None:
    assert route(lane, must_wait=False, is_held_back=False, has_backlog=False) is Route.READY


@pytest.mark.parametrize(
    ("lane", "must_wait", "held_back", "goes"),
    [
        (Lane.INTERACTIVE, False, False, Route.READY),
        (Lane.INTERACTIVE, True, False, Route.BACKLOG),
        (Lane.INTERACTIVE, False, True, Route.BACKLOG),
        (Lane.STANDARD, False, False, Route.BACKLOG),
        (Lane.BULK, False, False, Route.BACKLOG),
    ],
)
def test_only_interactive_jobs_that_need_not_wait_go_past_the_backlog(
    lane: Lane, must_wait: bool, held_back: bool, goes: Route
) -> None:
    assert route(lane, must_wait=must_wait, is_held_back=held_back, has_backlog=True) is goes
    assert needs_backlog_known(lane, must_wait=must_wait, is_held_back=held_back) is (goes is Route.BACKLOG)


def test_a_backlog_is_remembered_for_long_and_its_absence_for_seconds() -> None:
    known = Backlogs()
    assert known.has("p", 0.0) is None

    known.remember("p", is_there=False, now_s=0.0)
    assert known.has("p", NONE_REMEMBERED_S - 0.1) is False
    assert known.has("p", NONE_REMEMBERED_S + 0.1) is None

    known.remember("p", is_there=True, now_s=10.0)
    assert known.has("p", FOUND_REMEMBERED_S) is True
    known.forget("p")
    assert known.has("p", 11.0) is None


def test_interactive_work_is_held_back_only_while_a_dispatcher_says_so() -> None:
    known = Backlogs()
    known.note_held_back("p", frozenset({"greedy"}), 0.0)

    assert known.is_held_back("p", "greedy", 1.0)
    assert not known.is_held_back("p", "modest", 1.0)
    assert not known.is_held_back("q", "greedy", 1.0)
    assert not known.is_held_back("p", "greedy", HELD_BACK_REMEMBERED_S + 0.1)
    assert known.has("p", 1.0) is True
