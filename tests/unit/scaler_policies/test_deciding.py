from __future__ import annotations

from scaler.deciding import decide
from scaler.guard import Guard, GuardSettings
from scaler.policies.composed import Composed
from schemas.decision import sentences
from tests.support.observations import an_observation, due


def test_a_backlog_becomes_a_start_that_explains_itself() -> None:
    seen = an_observation(due=[due(3600.0, 20_000)])

    decision = decide(Composed(), Guard(GuardSettings(maximum=4)), seen, scaler="s1")

    assert (decision.action, decision.count, decision.target) == ("start", 4, 4)
    assert decision.wanted > 4
    lines = sentences(decision)
    assert any(
        line.startswith("The policy deadline wanted") and "20,000 s of one consumer's work" in line for line in lines
    )
    assert lines[-2].endswith("the maximum is 4.")
    assert lines[-1] == "So 4 consumers were started."


def test_stale_observations_hold_and_say_so() -> None:
    decision = decide(Composed(), Guard(GuardSettings()), an_observation(ready=2, age_s=90.0))

    assert (decision.action, decision.count, decision.target) == ("hold", 0, 2)
    assert sentences(decision)[-1] == "So nothing was changed until there is more certainty."


def test_an_idle_pool_is_left_alone() -> None:
    decision = decide(Composed(), Guard(GuardSettings()), an_observation())

    assert (decision.action, decision.target, decision.guard) == ("none", 0, "")
