"""The waiting jobs of one pool in the order in which they should be served. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from scaler.dispatch.capacity import Capacity
from scaler.dispatch.settings import DispatchSettings
from schemas.backlog import Ticket
from schemas.config import DispatcherSection
from schemas.dispatch import Amount, DueAmount, Promise, Quote
from schemas.subjects import Lane

EstimateOutput = Callable[[str, Lane, int], float]


class Waiting(msgspec.Struct, frozen=True):
    """What is known of one waiting or moving job. `output_tokens` is the estimate made when it was added."""

    seq: int
    lane: Lane
    tenant: str
    job_key: int
    prompt_tokens: int
    output_tokens: int
    deadline_unix_ms: int
    not_before_unix_ms: int
    prefix_key: int
    same_key: int
    batch: str
    window: str
    stored_unix_ms: int


class Place(msgspec.Struct, frozen=True):
    """Where a job stands. `position` and the times are of the order as it is now; 0 for what is held."""

    seq: int
    position: int
    eta_unix_ms: int
    latest_unix_ms: int
    state: str
    why_held: str


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """The pieces of a `Snapshot` that the backlog knows."""

    lanes: dict[str, Amount]
    held: Amount
    tenants: dict[str, Amount]
    tenants_total: int
    due: list[DueAmount]
    paused: list[str]


class Backlog:
    """One pool's. A job waits (queued or held), is moving (picked, expired or cancelled), or is forgotten."""

    def __init__(self, cfg: DispatcherSection, estimate_output: EstimateOutput) -> None:
        """`estimate_output(tenant, lane, output_tokens_max)`: tokens of an answer, 0 meaning that no bound is set."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Jobs that wait, held ones too; not the moving ones."""
        raise NotImplementedError

    @property
    def bytes_held(self) -> int:
        raise NotImplementedError

    def add(self, seq: int, lane: Lane, tenant: str, ticket: Ticket, job_key: int, stored_unix_ms: int) -> None:
        """Sequence numbers only grow: one that is not above the highest seen is ignored."""
        raise NotImplementedError

    def pick(self, jobs: int, now_unix_ms: int, capacity: Capacity) -> list[int]:
        """At most so many, in order of service; they are moving now."""
        raise NotImplementedError

    def moved(self, seqs: Iterable[int]) -> None:
        """They are elsewhere, or ended: forgotten here. Unknown ones are ignored; a waiting one is forgotten too."""
        raise NotImplementedError

    def put_back(self, seqs: Iterable[int]) -> None:
        """Moving them failed: first in line again, in the order given."""
        raise NotImplementedError

    def expire(self, now_unix_ms: int) -> list[int]:
        """Whose deadline has passed, held ones too; they are moving now."""
        raise NotImplementedError

    def cancel_jobs(self, tenant: str, job_keys: set[int]) -> list[int]:
        """The waiting ones among them, moving now. Those that were moving already are not among them."""
        raise NotImplementedError

    def cancel_batch(self, tenant: str, batch: str) -> list[int]:
        raise NotImplementedError

    def cancel_tenant(self, tenant: str) -> list[int]:
        raise NotImplementedError

    def find(self, tenant: str, job_keys: Iterable[int]) -> dict[int, int]:
        """Key to sequence number, of waiting and moving ones."""
        raise NotImplementedError

    def waiting(self, seq: int) -> Waiting | None:
        """None: neither waiting nor moving."""
        raise NotImplementedError

    def change(self, settings: DispatchSettings) -> None:
        raise NotImplementedError

    def quote(self, quote: Quote, now_unix_ms: int, capacity: Capacity) -> Promise:
        raise NotImplementedError

    def observe_eta(self, forecast_wait_s: float, actual_wait_s: float) -> None:
        """A job that was forecast to be done after the one was done after the other."""
        raise NotImplementedError

    def first(self, tenant: str, limit: int, now_unix_ms: int, capacity: Capacity) -> list[Place]:
        """The order as it would be if nothing else came; `*` is every tenant. Held ones last."""
        raise NotImplementedError

    def amounts(self, now_unix_ms: int) -> Amounts:
        raise NotImplementedError
