from __future__ import annotations

import msgspec

from producer.events import Restarted
from producer.replay import Replay
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result, Status, Usage


def started(attempt: int = 1, seq: int = 0) -> Started:
    return Started(job="j", seq=seq, attempt=attempt)


def delta(seq: int, text: str, choice: int = 0) -> Delta:
    return Delta(job="j", seq=seq, text=text, choice=choice)


def completed(text: str, tokens: int = 0) -> Result:
    body = msgspec.Raw(msgspec.json.encode({"choices": [{"index": 0, "message": {"content": text}}]}))
    usage = Usage(completion_tokens=tokens)
    return Result(id="j", status=Status.COMPLETED, status_code=200, pool="p", tenant="t", body=body, usage=usage)


def told(replay: Replay, *events) -> list:
    return [shown for event in events for shown in replay.take(event)]


def text_of(events: list) -> str:
    text = ""
    for event in events:
        if isinstance(event, Restarted):
            text = ""
        elif isinstance(event, Delta):
            text += event.text
    return text


def test_an_undisturbed_stream_passes_unchanged() -> None:
    replay = Replay("j")
    events = [started(), delta(1, "a"), delta(2, "b")]

    assert told(replay, *events) == events
    assert [type(event) for event in replay.finish(completed("ab"), 3)] == [Finished]


def test_a_repeat_of_the_same_text_is_swallowed() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "one "), delta(2, "two "))

    shown = told(replay, started(2), delta(1, "on"), delta(2, "e t"), delta(3, "wo three"), delta(4, " four"))

    assert [event.text for event in shown] == ["three", " four"]
    assert [type(event) for event in replay.finish(completed("one two three four"), 5)] == [Finished]


def test_a_repeat_that_says_something_else_is_announced_and_told_in_full() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "one "), delta(2, "two "))

    shown = told(replay, started(2), delta(1, "one "), delta(2, "three"))

    assert isinstance(shown[0], Restarted)
    assert text_of(shown) == "one three"


def test_a_job_handed_back_uncharged_starts_again_under_the_same_number() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "one "))

    shown = told(replay, started(), delta(1, "one "), delta(2, "two"))

    assert text_of(shown) == "two"


def test_text_behind_a_hole_is_held_back_and_completed_from_the_result() -> None:
    replay = Replay("j")
    shown = told(replay, started(), delta(1, "a"), delta(3, "c"))

    assert text_of(shown) == "a"
    last = replay.finish(completed("abc", tokens=3), 4)
    assert text_of(last) == "bc"
    assert last[0].tokens == 2


def test_frames_lost_at_the_end_are_completed_from_the_result() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "a"))

    assert text_of(replay.finish(completed("abc"))) == "bc"


def test_a_result_that_contradicts_the_stream_restarts_it() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "a"))

    last = replay.finish(completed("xyz"))

    assert isinstance(last[0], Restarted)
    assert text_of(last) == "xyz"


def test_doubled_events_are_told_once() -> None:
    replay = Replay("j")
    assert text_of(told(replay, started(), delta(1, "a"), delta(1, "a"), delta(2, "b"))) == "ab"


def test_choices_are_repeated_apart() -> None:
    replay = Replay("j")
    told(replay, started(), delta(1, "a", 0), delta(2, "x", 1))

    shown = told(replay, started(2), delta(1, "x", 1), delta(2, "y", 1), delta(3, "a", 0), delta(4, "b", 0))

    assert [(event.choice, event.text) for event in shown] == [(1, "y"), (0, "b")]


def test_chunks_cannot_be_compared_so_their_restart_is_visible() -> None:
    replay = Replay("j")
    chunk = Chunk(job="j", seq=1, chunk=msgspec.Raw(b"{}"))
    told(replay, started(), chunk)

    assert isinstance(told(replay, started(2))[0], Restarted)


def test_a_job_nobody_streamed_tells_its_text_at_the_end() -> None:
    assert text_of(Replay("j").finish(completed("all of it"))) == "all of it"
