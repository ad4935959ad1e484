"""Whose place an interactive job takes when there is none: the victims, as few and as cheap as will do. Pure.

Least urgent lane first, then whoever has computed least: what is thrown away is computed again. A job is displaced a
few times at most, or a steady stream of interactive work would never let it end. What is asked of the budget is its own
answer, with the victims gone; where even all of them would not do, nobody is.
"""

from __future__ import annotations

from consumer.budget import KvBudget
from consumer.engine.port import Capacity, Need
from consumer.waiting import Waiting


def computed_tokens(need: Need) -> int:
    """What would have to be computed again."""
    produced = need.produced()
    return produced + (need.prompt_tokens if produced else 0)


def make_room(one: Waiting, inside: list[Waiting], budget: KvBudget, capacity: Capacity) -> list[Waiting] | None:
    """Takes victims among `inside` out of the budget until `one` fits; None, and nothing changed, when it cannot."""
    candidates = [other for other in inside if other.rank.lane > one.rank.lane and not other.is_firm]
    candidates.sort(key=lambda other: (-other.rank.lane, computed_tokens(other.need), -other.rank.arrival))
    victims: list[Waiting] = []
    blocks, sequences = budget.lacks(one.need, one.origin, capacity)
    while (blocks > 0 or sequences > 0) and candidates:
        while candidates and (blocks > 0 or sequences > 0):
            victim = candidates.pop(0)
            blocks -= budget.held_blocks(victim.job_id)
            sequences -= victim.need.sequences
            budget.release(victim.job_id)
            victims.append(victim)
        # What it held is only about what the peak falls by.
        blocks, sequences = budget.lacks(one.need, one.origin, capacity)
    if blocks <= 0 and sequences <= 0:
        return victims
    for victim in victims:
        budget.reserve(victim.job_id, victim.need, victim.origin)
    return None
