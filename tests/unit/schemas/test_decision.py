from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.decision import Decision, Inputs, Wish, sentences

DECISION = Decision(
    pool="default",
    unix_ms=1,
    inputs=Inputs(ready=2, waiting_jobs=1200, waiting_tokens=900_000, running_jobs=90),
    wishes=[
        Wish(policy="deadline", replicas=6, reason="9,000 s of work are due within 1,800 s"),
        Wish(policy="schedule", reason="no window of the schedule is open"),
    ],
    wanted=6,
    target=4,
    guard="the maximum is 4",
    action="start",
    count=2,
)


def test_a_decision_reads_as_sentences() -> None:
    assert sentences(DECISION) == [
        "2 consumers were ready, 0 starting, 0 draining; 1,200 jobs waited (900,000 tokens) and 90 ran.",
        "The policy deadline wanted 6 consumers: 9,000 s of work are due within 1,800 s.",
        "The policy schedule had no wish: no window of the schedule is open.",
        "Together they came to 6 consumers.",
        "The guard made 4 consumers of 6: the maximum is 4.",
        "So 2 consumers were started.",
    ]


def test_a_decision_survives_the_wire_and_fields_of_newer_versions() -> None:
    wire = msgspec.json.decode(msgspec.json.encode(DECISION))
    wire["from_the_future"] = 1

    assert msgspec.convert(wire, Decision) == DECISION


RECORDED = Path(__file__).parent / "decisions.json"


def test_twenty_recorded_decisions_read_as_they_were_written_down() -> None:
    """Of a day made up to show everything; when the words change on purpose, look at `decisions.txt` as a stranger."""
    decisions = msgspec.json.decode(RECORDED.read_bytes(), type=list[Decision])

    texts = ["\n".join(sentences(decision)) for decision in decisions]

    assert len(texts) == 20
    assert texts == RECORDED.with_suffix(".txt").read_text().rstrip("\n").split("\n\n")


def test_every_sentence_ends_and_the_last_says_what_was_done() -> None:
    for decision in msgspec.json.decode(RECORDED.read_bytes(), type=list[Decision]):
        lines = sentences(decision)
        assert all(line[0].isupper() or line[0].isdigit() for line in lines)
        assert all(line.endswith(".") for line in lines)
        assert lines[-1].startswith("So ")
        assert not any("replica" in line for line in lines)


def test_an_order_by_hand_says_when_it_ends() -> None:
    lines = sentences(Decision(pool="p", unix_ms=1, override=2, override_until_unix_ms=1_795_867_200_000, target=2))
    assert "A person asked for 2 consumers until 2026-11-28 12:00:00 UTC, whatever the policies wish." in lines

    lines = sentences(Decision(pool="p", unix_ms=1, override=1, target=1))
    assert "A person asked for 1 consumer until further notice, whatever the policies wish." in lines
