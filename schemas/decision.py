"""A scaler's decision as an event: what it saw, what each policy wished and why, what the guard changed, what was done.

One is published for each change and, without change, once a minute; `penstock explain` reads them as sentences.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec


class Inputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The observation in the units a person thinks in. Tokens are estimates until they are done."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    # Consumers that die and are started again and again.
    crash_looping: int = 0
    waiting_jobs: int = 0
    waiting_tokens: int = 0
    interactive_waiting_jobs: int = 0
    running_jobs: int = 0
    earliest_deadline_unix_ms: int = 0
    # As measured, from being asked for to being heard: what is usual, and what 95 of 100 need at most.
    cold_start_s: float = 0.0
    cold_start_p95_s: float = 0.0
    # Replica-seconds for each predicted second: above 1 the pool is slower than its rates say.
    pace: float = 1.0
    interactive_load: float = 0.0
    interactive_headroom: float = 0.0
    # How old the oldest thing looked at was.
    age_s: float = 0.0


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one policy wanted. `replicas` is missing where it had no wish."""

    policy: str
    reason: str
    replicas: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`wanted` is what the policies came to, `target` what the guard left of it, `action` what the driver was asked."""

    pool: str
    unix_ms: int
    scaler: str = ""
    inputs: Inputs = Inputs()
    wishes: list[Wish] = []
    wanted: int = 0
    target: int = 0
    # Why `target` is not `wanted`; empty where it is.
    guard: str = ""
    action: Literal["none", "start", "stop", "hold"] = "none"
    count: int = 0
    # What woke the scaler, when it was not its clock.
    woken_by: str = ""
    # What a person asked for, whatever the policies came to; without an end, until somebody says otherwise.
    override: int | None = None
    override_until_unix_ms: int = 0
    # Why the driver could not do it; the next look tries again.
    failed: str = ""


# What a policy means by its number, where that is not a wish.
_VERBS = {"budget": "allowed at most", "schedule": "asked for at least"}


def sentences(decision: Decision) -> list[str]:
    """The decision for someone who never read this code."""
    seen = decision.inputs
    consumers = f"{_consumers(seen.ready, 'was', 'were')} ready, {seen.starting} starting, {seen.draining} draining"
    consumers = consumers[0].upper() + consumers[1:]
    jobs = f"{_jobs(seen.waiting_jobs)} waited ({seen.waiting_tokens:,} tokens) and {seen.running_jobs:,} ran"
    lines = [f"{consumers}; {jobs}."]
    if decision.woken_by:
        lines.append(f"The scaler looked because {decision.woken_by}.")
    if seen.crash_looping:
        lines.append(
            f"{_consumers(seen.crash_looping, 'dies', 'die')} again and again: look at why before anything else."
        )
    for wish in decision.wishes:
        verb = _VERBS.get(wish.policy, "wanted")
        wanted = "had no wish" if wish.replicas is None else f"{verb} {_consumers(wish.replicas)}"
        lines.append(f"The policy {wish.policy} {wanted}: {wish.reason}.")
    if decision.wishes:
        lines.append(f"Together they came to {_consumers(decision.wanted)}.")
    if decision.override is not None:
        until = moment(decision.override_until_unix_ms)
        end = f"until {until}" if until else "until further notice"
        lines.append(f"A person asked for {_consumers(decision.override)} {end}, whatever the policies wish.")
    if decision.action == "hold":
        lines.append(f"The guard decided nothing: {decision.guard}.")
    elif decision.guard:
        lines.append(f"The guard made {_consumers(decision.target)} of {decision.wanted}: {decision.guard}.")
    return [*lines, _action(decision)]


def moment(unix_ms: int) -> str:
    """`2026-11-28 22:00:00 UTC`; empty for none."""
    return f"{dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC" if unix_ms else ""


def _action(decision: Decision) -> str:
    if decision.failed:
        verb = "start" if decision.action == "start" else "stop"
        return f"So {_consumers(decision.count)} should {verb}, but {decision.failed}; the next look tries again."
    match decision.action:
        case "start":
            return f"So {_consumers(decision.count, 'was', 'were')} started."
        case "stop":
            return f"So {_consumers(decision.count, 'was', 'were')} asked to drain and stop."
        case "hold":
            return "So nothing was changed until there is more certainty."
        case "none":
            return "So nothing had to be changed."


def _consumers(count: int, one: str = "", many: str = "") -> str:
    return f"1 consumer {one}".rstrip() if count == 1 else f"{count or 'no'} consumers {many}".rstrip()


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
