from consumer.attempts import History, Way, after_fault, after_release, after_start, decode_history, way_of
from schemas.config import ConsumerSection

CFG = ConsumerSection(attempts_shared=2, attempts_max=8)


def test_a_new_job_runs_with_the_others() -> None:
    assert way_of(History(), CFG) is Way.TOGETHER


def test_after_two_engine_deaths_a_job_runs_alone() -> None:
    history = History()
    for _ in range(2):
        history = after_fault(after_start(history), alone=False, reason="boom")

    assert way_of(history, CFG) is Way.ALONE


def test_a_job_that_kills_the_engine_twice_alone_is_never_run_again() -> None:
    history = History()
    for alone in (False, False, True, True):
        history = after_fault(after_start(history), alone=alone, reason="boom")

    assert way_of(history, CFG) is Way.NEVER


def test_a_released_start_is_not_charged() -> None:
    history = after_release(after_start(after_start(History())))

    assert history.started == 1


def test_starts_that_vanish_are_bounded() -> None:
    history = History()
    ways: list[Way] = []
    for _ in range(8):
        ways.append(way_of(history, CFG))
        history = after_start(history)

    assert ways[-1] is Way.ALONE
    assert way_of(history, CFG) is Way.NEVER


def test_a_broken_record_is_an_empty_one() -> None:
    assert decode_history(b"\xff{") == History()
