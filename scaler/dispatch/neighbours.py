"""Which jobs behind the first of a queue begin like it, so that an engine meets them with a warm cache. No I/O."""

from __future__ import annotations

from scaler.dispatch.columns import NONE, Columns
from scaler.dispatch.fair import Flow

# A job may be overtaken by this many of the same tenant at a time, and a turn may serve so many: enough to pay for one
# cold prefix (7 of 8 hit), few enough that shares between tenants stay even over a thousand jobs.
GROUP_MAX = 8
GROUP_TOKENS_MAX = 8192
_REACH_MIN, _REACH_MAX = 8, 512
# Every so many looks is a long one, or a change of workload would never be noticed.
_LONG_LOOK_EVERY = 16


def neighbours(columns: Columns, flow: Flow) -> list[int]:
    """Slots behind the flow's first whose prompts begin like it, in order, fewer than `GROUP_MAX`.

    It looks at `flow.reach` jobs: as many as twice the last look needed, fewer where it found nothing, so that queues
    without common prefixes cost next to nothing.
    """
    prefix = columns.prefix[flow.head]
    # Who comes new is served before others for one job, not for a group.
    if not prefix or flow.is_new:
        return []
    reach = flow.reach if flow.looks % _LONG_LOOK_EVERY else _REACH_MAX
    flow.looks += 1
    tokens = columns.prompt[flow.head] + columns.output[flow.head]
    found: list[int] = []
    slot, prefixes, after = flow.head, columns.prefix, columns.after
    needed = 0
    for step in range(1, reach + 1):
        slot = after[slot]
        if slot == NONE:
            break
        if prefixes[slot] == prefix:
            tokens += columns.prompt[slot] + columns.output[slot]
            if tokens > GROUP_TOKENS_MAX:
                break
            found.append(slot)
            needed = step
            if len(found) == GROUP_MAX - 1:
                break
    flow.reach = min(_REACH_MAX, max(_REACH_MIN, 2 * needed if found else flow.reach // 2))
    return found
