"""Which jobs behind the first of a queue begin like it, so that an engine meets them with a warm cache. No I/O."""

from __future__ import annotations

from scaler.dispatch.columns import NONE, Columns
from scaler.dispatch.fair import Flow

# A job may be overtaken by this many of the same tenant at a time, and a turn may serve so many: enough to pay for one
# cold prefix (7 of 8 hit), few enough that shares between tenants stay even over a thousand jobs.
GROUP_MAX = 8
GROUP_TOKENS_MAX = 8192
_REACH_MIN, _REACH_MAX = 8, 256


def neighbours(columns: Columns, flow: Flow, jobs: int) -> list[int]:
    """Slots behind the flow's first whose prompts begin like it, in order, fewer than `jobs` and `GROUP_MAX`.

    It looks at `flow.reach` jobs: more where the last look did not find enough although there was some to find, fewer
    where it found nothing, so that queues without common prefixes cost next to nothing.
    """
    prefix = columns.prefix[flow.head]
    wanted = min(jobs, GROUP_MAX) - 1
    # Who comes new is served before others for one job, not for a group.
    if not prefix or wanted <= 0 or flow.is_new:
        return []
    tokens = columns.prompt[flow.head] + columns.output[flow.head]
    found: list[int] = []
    slot, prefixes, after = flow.head, columns.prefix, columns.after
    for _ in range(flow.reach):
        slot = after[slot]
        if slot == NONE:
            return found
        if prefixes[slot] == prefix:
            tokens += columns.prompt[slot] + columns.output[slot]
            if tokens > GROUP_TOKENS_MAX:
                return found
            found.append(slot)
            if len(found) == wanted:
                return found
    # Every sixteenth look is a long one, or a change of workload would never be noticed.
    if found or columns.seq[flow.head] % 16 == 0:
        flow.reach = min(_REACH_MAX, flow.reach * 2)
    else:
        flow.reach = max(_REACH_MIN, flow.reach // 2)
    return found
