"""What `GET /v1/overview` shows: pools, what waits in them, who serves them, and what the scaler decided.

Times are Unix seconds, 0 where there is none; tokens that wait are estimates.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.dispatch import Amount


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    jobs: int = 0
    # Prompts and answers.
    tokens: int = 0
    oldest_at: float = 0.0


class ConsumerView(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer as it last spoke of itself, `age_s` ago."""

    consumer: str
    models: list[str] = []
    started_at: float = 0.0
    age_s: float = 0.0
    is_draining: bool = False
    kv_blocks_total: int = 0
    kv_blocks_free: int = 0
    # Jobs in the engine, and jobs pulled that wait for KV cache.
    running: int = 0
    at_door: int = 0
    # Tokens of answers, over the last seconds.
    tokens_per_s: float = 0.0
    # Since it started.
    preemptions: int = 0
    context_tokens_max: int = 0
    # Of prompt tokens, how many were in the cache already.
    prefix_hit_share: float = 0.0


class PoolOverview(msgspec.Struct, frozen=True, kw_only=True):
    """`lanes` and `tenants` are empty where no dispatcher orders the pool; `ready` is then all that waits.

    With API keys, `tenants` and `paused` hold only what is the caller's own.
    """

    pool: str
    models: list[str] = []
    # Empty: there is none.
    dispatcher: str = ""
    lanes: dict[str, Waiting] = {}
    held: Waiting = Waiting()
    tenants: dict[str, Waiting] = {}
    tenants_total: int = 0
    # Moved to the consumers and not finished; of them, what no consumer has pulled yet.
    in_ready: Waiting = Waiting()
    ready: int = 0
    consumers: list[ConsumerView] = []
    # Now, over all consumers.
    tokens_per_s: float = 0.0
    # Measured by the dispatcher over the last minute at work.
    jobs_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    is_paused: bool = False
    # Tenants, and `batch:NAME`.
    paused: list[str] = []
    # Why the gateway takes no requests for it; empty while it does.
    closed: str = ""
    # `tokens_per_s` of each of the last seconds, oldest first; in a stream only in its first event.
    history: list[float] = []


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the scaler's decisions, with its reasons as sentences."""

    pool: str
    at: float
    action: Literal["none", "start", "stop", "hold"] = "none"
    count: int = 0
    target: int = 0
    # The reason that decided, and what the guard made of it.
    why: str = ""
    sentences: list[str] = []


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """`decisions` is null in a streamed event where there is no news of them; else the latest, newest first."""

    at: float
    gateway: str
    version: str
    tenant: str
    has_keys: bool
    pools: list[PoolOverview] = []
    decisions: list[DecisionView] | None = None
    object: Literal["overview"] = "overview"


def waiting_of(amount: Amount) -> Waiting:
    return Waiting(
        jobs=amount.jobs,
        tokens=amount.prompt_tokens + amount.output_tokens,
        oldest_at=amount.oldest_unix_ms / 1000,
    )
