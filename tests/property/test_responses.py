"""However an answer came, in which frames, with what holes and repeats, and wherever a reader comes back: every event
once, in order, under the same number."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from producer.gateway.responses.ending import ending_of
from producer.gateway.responses.script import Step, script_of
from producer.gateway.responses.teller import Said, Teller
from schemas.frames import Chunk, Delta, Finished, Started
from schemas.result import Result, Status, Timing, Usage

TEXTS = st.text(st.one_of(st.sampled_from("ab \n.,水é🙂"), st.characters(codec="utf-8")), max_size=60)
CALLS = st.lists(st.tuples(st.sampled_from(["find", "add"]), TEXTS), max_size=2)


def a_result(text: str, reasoning: str = "", calls: list[tuple[str, str]] = [], *, attempt: int = 1) -> Result:  # noqa: B006
    message = {
        "content": text or None,
        "reasoning": reasoning or None,
        "tool_calls": [{"id": f"call-{name}", "function": {"name": name, "arguments": more}} for name, more in calls],
    }
    body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
    return Result(
        id="job",
        status=Status.COMPLETED,
        status_code=200,
        pool="default",
        tenant="default",
        body=body,
        usage=Usage(prompt_tokens=3, completion_tokens=5),
        timing=Timing(finished_unix_ms=5000),
        attempt=attempt,
    )


@st.composite
def cuts(draw: st.DrawFn, text: str) -> list[str]:
    """`text` in parts, as some engine might have sent it."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True) if end > start]


@st.composite
def attempts(draw: st.DrawFn, reasoning: str, text: str, *, is_last: bool) -> list[Said]:
    """What one consumer said of it; not all, where it died."""
    chunks = bool(reasoning) or draw(st.booleans())
    events: list[Said] = [Started(job="job", seq=0, attempt=1)]
    parts = [("reasoning", part) for part in draw(cuts(reasoning))] + [("content", part) for part in draw(cuts(text))]
    for seq, (kind, part) in enumerate(parts, 1):
        if chunks:
            chunk = json.dumps({"choices": [{"index": 0, "delta": {kind: part}}]}).encode()
            events.append(Chunk(job="job", seq=seq, chunk=chunk))
        else:
            events.append(Delta(job="job", seq=seq, text=part))
    return events if is_last else events[: draw(st.integers(1, len(events)))]


@st.composite
def stories(draw: st.DrawFn) -> tuple[Result, list[Said]]:
    """A job's stream: some attempts that say the same, then its end."""
    text, reasoning, calls = draw(TEXTS), draw(TEXTS), draw(CALLS)
    deaths = draw(st.integers(0, 2))
    said: list[Said] = []
    for number in range(deaths + 1):
        said += draw(attempts(reasoning, text, is_last=number == deaths))
    result = a_result(text, reasoning, calls, attempt=deaths + 1)
    said.append(draw(st.sampled_from([result, Finished(job="job", seq=99, result=result)])))
    return result, said


def told(said: list[Said], after: int, *, tells_at: set[int] | None = None) -> list[tuple[int, Step]]:
    teller = Teller(is_background=True, after=after, is_repeatable=True)
    events: list[tuple[int, Step]] = []
    for place, one in enumerate(said):
        teller.take(one)
        if tells_at is None or place in tells_at or place == len(said) - 1:
            events += teller.due()
    assert teller.is_done
    assert not teller.broken
    return events


@given(stories(), st.data())
@settings(max_examples=60)
def test_whoever_comes_back_anywhere_gets_every_event_once_in_the_same_numbering(
    story: tuple[Result, list[Said]], data: st.DataObject
) -> None:
    result, said = story
    whole = list(enumerate(script_of(ending_of(result), is_background=True)))
    after = data.draw(st.integers(-1, len(whole)))
    # It comes back at some moment: what is kept until then is read at once, the rest as it comes.
    since = data.draw(st.integers(0, len(said) - 1))

    assert told(said, after, tells_at=set(range(since, len(said)))) == whole[after + 1 :]


@given(stories(), st.data())
@settings(max_examples=60)
def test_two_readers_one_of_the_frames_and_one_of_the_stored_answer_alone_hear_the_same(
    story: tuple[Result, list[Said]], data: st.DataObject
) -> None:
    result, said = story
    drops = data.draw(st.sets(st.integers(0, max(0, len(said) - 2))))
    # Of a start that is lost with just as many tokens as were heard before, nobody could know.
    drops -= {place + 1 for place, one in enumerate(said) if isinstance(one, Started) and place in drops}
    with_holes = [one for place, one in enumerate(said) if place not in drops]

    assert told([result], -1) == told(with_holes, -1) == told(said, -1)


@given(stories(), st.data())
@settings(max_examples=60)
def test_what_is_read_twice_after_a_hole_is_told_once(story: tuple[Result, list[Said]], data: st.DataObject) -> None:
    result, said = story
    hole, again = sorted(data.draw(st.tuples(*[st.integers(0, len(said) - 1)] * 2)))

    assert told([*said[:hole], *said[hole + 1 : again], *said[:again], *said[again:]], -1) == list(
        enumerate(script_of(ending_of(result), is_background=True))
    )


@given(TEXTS, TEXTS, st.data())
def test_what_was_told_is_never_followed_by_the_rest_of_something_else(
    first: str, second: str, data: st.DataObject
) -> None:
    """A second attempt that says something else: its reader has a true prefix of it, or the stream breaks."""
    died: list[Said] = data.draw(attempts("", first, is_last=False))
    lives: list[Said] = data.draw(attempts("", second, is_last=True))
    result = a_result(second, attempt=2)
    teller = Teller(is_background=True)
    events: list[tuple[int, Step]] = []
    for one in [*died, *lives, result]:
        teller.take(one)
        events += teller.due()
    whole = list(enumerate(script_of(ending_of(result), is_background=True)))

    assert teller.is_done
    if teller.broken:
        assert events != whole[: len(events)]
    else:
        assert events == whole


@given(TEXTS, TEXTS)
@settings(max_examples=50)
def test_the_pieces_of_a_text_are_the_text(reasoning: str, text: str) -> None:
    steps = script_of(ending_of(a_result(text, reasoning)), is_background=False)

    assert "".join(step.text for step in steps if step.kind == "message.delta") == text
    assert "".join(step.text for step in steps if step.kind == "reasoning.delta") == reasoning.strip()
    assert all(len(step.text) <= 4 for step in steps if step.kind.endswith(".delta"))
