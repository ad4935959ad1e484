"""What a pool's dispatcher is asked and what it answers: one request and reply on `penstock.control.<pool>.dispatch`.

Only the leading dispatcher listens there, so that "nobody listens" means that there is none now.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.subjects import Lane


class Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", omit_defaults=True):
    """One of the following."""


class Quote(Question, frozen=True, kw_only=True, tag="quote"):
    """When would this be done, and may it be submitted? `tokens` are summed over `jobs`.

    With `is_firm` the answer, if it is a yes, keeps the room for a few seconds until the jobs are seen.
    """

    tenant: str
    lane: Lane = Lane.STANDARD
    jobs: int = 1
    prompt_tokens: int = 0
    # 0: not known; the dispatcher knows what this tenant's answers are usually like.
    output_tokens: int = 0
    # At most so many, where every job says its most; answers are mostly far shorter.
    output_tokens_max: int = 0
    deadline_unix_ms: int = 0
    not_before_unix_ms: int = 0
    window: str = ""
    is_firm: bool = False


class FindJobs(Question, frozen=True, kw_only=True, tag="find"):
    """Where these jobs are. Those that neither wait nor run are left out of the answer."""

    tenant: str
    jobs: list[str]


class ListJobs(Question, frozen=True, kw_only=True, tag="list"):
    """The first waiting jobs in the order in which they would be served. Tenant `*`: of all."""

    tenant: str = "*"
    limit: int = 100


class Cancel(Question, frozen=True, kw_only=True, tag="cancel"):
    """Ends what waits here: these jobs, or all of a batch, or all of the tenant's when neither is given.

    Answered when it is certain that none of them will start; their results are stored by and by.
    """

    tenant: str
    jobs: list[str] = []
    batch: str = ""


class Change(Question, frozen=True, kw_only=True, tag="change"):
    """Changes what the order depends on; kept over restarts. What is not mentioned stays."""

    weights: dict[str, float] = {}
    pause_pool: bool | None = None
    pause_tenants: list[str] = []
    resume_tenants: list[str] = []
    pause_batches: list[str] = []
    resume_batches: list[str] = []


class Look(Question, frozen=True, kw_only=True, tag="look"):
    """The backlog as it stands: a `Snapshot`."""


AnyQuestion = Quote | FindJobs | ListJobs | Cancel | Change | Look


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Instead of an answer. `message` says what to do about it."""

    error: str
    param: str = ""


class Promise(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When the last of the jobs will be done: as likely before as after `eta_unix_ms`, and with `confidence` before
    `latest_unix_ms`. Both are 0 while nothing is known of the pool's speed.

    Where `is_accepted` is false the deadline cannot hold in any order that keeps earlier promises;
    `earliest_unix_ms` could.
    """

    is_accepted: bool = True
    eta_unix_ms: int = 0
    latest_unix_ms: int = 0
    confidence: float = 0.95
    earliest_unix_ms: int = 0
    # Jobs that will be served before it.
    position: int = 0
    reason: str = ""


class WaitingJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job the dispatcher knows. `state`: queued, held (until a time, a window, or a resume), ready, running."""

    job: str
    tenant: str
    lane: str
    state: Literal["queued", "held", "ready", "running"] = "queued"
    seq: int = 0
    batch: str = ""
    position: int = 0
    eta_unix_ms: int = 0
    latest_unix_ms: int = 0
    submitted_unix_ms: int = 0
    deadline_unix_ms: int = 0
    why_held: str = ""


class WaitingJobs(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[WaitingJob] = []


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    jobs: int


class Amount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much waits. Tokens are estimates: prompts from their length, answers from what was learned."""

    jobs: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    oldest_unix_ms: int = 0


class DueAmount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must be done by a time (rounded up to its bin), not counting what is due before."""

    deadline_unix_ms: int
    jobs: int
    prompt_tokens: int
    output_tokens: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The backlog of one pool in tokens: what a scaler, a page or a person looks at. Also published every second on
    `penstock.snapshot.<pool>`.
    """

    pool: str
    dispatcher: str
    unix_ms: int
    # Waiting to be moved to READY; what is held is in `held` and not in `lanes`.
    lanes: dict[str, Amount] = {}
    held: Amount = Amount()
    # The largest by tokens, at most 50, and how many there are in all.
    tenants: dict[str, Amount] = {}
    tenants_total: int = 0
    due: list[DueAmount] = []
    # Moved to READY and not finished.
    in_ready: Amount = Amount()
    consumers: int = 0
    # Measured over the last minute at work; 0 while unknown.
    jobs_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    # `tenant`, or `batch:NAME`, or `*` for the pool.
    paused: list[str] = []
    # Tenants with so many interactive jobs in READY that further ones wait in the backlog as well.
    over_quota: list[str] = []
    # Shares of tenants that do not have 1.
    weights: dict[str, float] = {}
    expired: int = 0
    cancelled: int = 0
    coalesced: int = 0
    # Actual minus forecast completion of lately finished jobs, as a share of the forecast wait: median.
    eta_error: float = 0.0
