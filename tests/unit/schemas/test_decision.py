from __future__ import annotations

import msgspec

from schemas.decision import Decision, Inputs, Wish, sentences

DECISION = Decision(
    pool="default",
    unix_ms=1,
    inputs=Inputs(ready=2, waiting_jobs=1200, waiting_tokens=900_000, running_jobs=90),
    wishes=[
        Wish(policy="deadline", replicas=6, reason="9,000 replica-seconds are due within 1,800 s"),
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
        "The policy deadline wanted 6 consumers: 9,000 replica-seconds are due within 1,800 s.",
        "The policy schedule had no wish: no window of the schedule is open.",
        "The guard made 4 consumers of 6: the maximum is 4.",
        "So 2 consumers were started.",
    ]


def test_a_decision_survives_the_wire_and_fields_of_newer_versions() -> None:
    wire = msgspec.json.decode(msgspec.json.encode(DECISION))
    wire["from_the_future"] = 1

    assert msgspec.convert(wire, Decision) == DECISION
