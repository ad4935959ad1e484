"""A scaler's decision as an event: what it saw, what each policy wished and why, what the guard changed, what was done.

One is published for each change and, without change, once a minute; `penstock explain` reads them as sentences.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Inputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The observation in the units a person thinks in. Tokens are estimates until they are done."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    waiting_jobs: int = 0
    waiting_tokens: int = 0
    interactive_waiting_jobs: int = 0
    running_jobs: int = 0
    earliest_deadline_unix_ms: int = 0
    cold_start_s: float = 0.0
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


def sentences(decision: Decision) -> list[str]:
    """The decision for someone who never read this code."""
    seen = decision.inputs
    consumers = f"{seen.ready} consumers were ready, {seen.starting} starting, {seen.draining} draining"
    jobs = f"{seen.waiting_jobs:,} jobs waited ({seen.waiting_tokens:,} tokens) and {seen.running_jobs:,} ran"
    lines = [f"{consumers}; {jobs}."]
    for wish in decision.wishes:
        wanted = "had no wish" if wish.replicas is None else f"wanted {_consumers(wish.replicas)}"
        lines.append(f"{wish.policy} {wanted}: {wish.reason}.")
    if decision.guard:
        lines.append(f"The guard made {_consumers(decision.target)} of {decision.wanted}: {decision.guard}.")
    if decision.action in {"start", "stop"}:
        verb = "started" if decision.action == "start" else "asked to drain and stop"
        lines.append(f"So {_consumers(decision.count)} {'was' if decision.count == 1 else 'were'} {verb}.")
    elif decision.action == "hold":
        lines.append("So nothing was changed until there is more certainty.")
    else:
        lines.append("So nothing had to be changed.")
    return lines


def _consumers(count: int) -> str:
    return "1 consumer" if count == 1 else f"{count} consumers"
