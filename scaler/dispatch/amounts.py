"""The backlog in tokens: by lane, tenant and deadline. No I/O."""

from __future__ import annotations

import heapq

import msgspec
import numpy as np

from scaler.dispatch.columns import NONE
from scaler.dispatch.due import BIN_BITS
from scaler.dispatch.fair import Flow
from scaler.dispatch.index import LANES_IN_ORDER, Index
from schemas.dispatch import Amount, DueAmount

_TENANTS_MAX = 50
_MINUTE_MS = 60_000
# Steps of the demand as it is told: fine where it is near, in minutes from now.
_STEPS_MIN = (
    1,
    2,
    5,
    10,
    15,
    20,
    30,
    45,
    *range(60, 24 * 60 + 1, 60),
    *(days * 24 * 60 for days in (2, 3, 5, 7, 14, 30)),
)


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """The pieces of a `Snapshot` that the backlog knows. `paused`: tenants, `batch:<name>`, and `*` for the pool."""

    lanes: dict[str, Amount]
    held: Amount
    tenants: dict[str, Amount]
    tenants_total: int
    due: list[DueAmount]
    paused: list[str]


def amounts_of(index: Index, now_unix_ms: int) -> Amounts:
    """A few milliseconds for 10,000 tenants."""
    lanes = {
        lane.value: _sum(index, [flow for flow in index.flows_of(lane) if flow.jobs and not flow.is_paused])
        for lane in LANES_IN_ORDER
    }
    by_tenant: dict[str, list[Flow]] = {}
    for flow in index.flows:
        if flow.jobs or flow.held_jobs:
            by_tenant.setdefault(flow.tenant, []).append(flow)
    tokens = {tenant: sum(flow.prompt + flow.output for flow in flows) for tenant, flows in by_tenant.items()}
    largest = heapq.nlargest(_TENANTS_MAX, tokens, key=tokens.__getitem__)
    settings = index.settings
    return Amounts(
        lanes=lanes,
        held=_held(index),
        tenants={tenant: _sum(index, by_tenant[tenant]) for tenant in largest},
        tenants_total=len(by_tenant),
        due=_due(index, now_unix_ms),
        paused=["*"] * settings.is_pool_paused
        + sorted(settings.paused_tenants)
        + [f"batch:{batch}" for batch in sorted(settings.paused_batches)],
    )


def _sum(index: Index, flows: list[Flow]) -> Amount:
    stored = index.columns.stored
    return Amount(
        jobs=sum(flow.jobs for flow in flows),
        prompt_tokens=sum(flow.prompt for flow in flows),
        output_tokens=sum(flow.output for flow in flows),
        oldest_unix_ms=min((stored[flow.head] for flow in flows if flow.head != NONE), default=0),
    )


def _held(index: Index) -> Amount:
    paused = _sum(index, [flow for flow in index.flows if flow.jobs and flow.is_paused])
    jobs, prompt, output = index.held
    return Amount(
        jobs=paused.jobs + jobs,
        prompt_tokens=paused.prompt_tokens + prompt,
        output_tokens=paused.output_tokens + output,
        oldest_unix_ms=min((time for time in (paused.oldest_unix_ms, index.oldest_held_unix_ms()) if time), default=0),
    )


def _due(index: Index, now_unix_ms: int) -> list[DueAmount]:
    bins, *amounts = index.demand.rows()
    if not bins.size:
        return []
    ends = (bins + 1) << BIN_BITS
    steps = now_unix_ms + np.array(_STEPS_MIN) * _MINUTE_MS
    which = np.searchsorted(steps, ends)
    jobs, prompt, output = (np.bincount(which, weights=column, minlength=steps.size + 1) for column in amounts)
    deadlines = np.append(steps, ends[-1])
    return [
        DueAmount(
            deadline_unix_ms=int(deadlines[at]),
            jobs=int(jobs[at]),
            prompt_tokens=int(prompt[at]),
            output_tokens=int(output[at]),
        )
        for at in np.flatnonzero(jobs).tolist()
    ]
