"""Which pool serves which model, by what its live consumers say, and how busy it is. Pure: time is passed in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from schemas.dispatch import Snapshot
from schemas.errors import JobMalformed, UnknownModel, UnknownPool
from schemas.openai import Model
from schemas.subjects import LANES, Lane

# A consumer says that it lives at least every 5 s.
_ALIVE_S = 15.0
# A dispatcher's view, every second.
_FRESH_S = 10.0
_SHOWN_MAX = 20


class Capacity(msgspec.Struct, frozen=True):
    context_tokens_max: int = 0
    running: int = 0
    waiting: int = 0


class Presence(msgspec.Struct, frozen=True):
    """What a consumer says of itself, as far as it matters here."""

    consumer: str = ""
    pool: str = ""
    models: list[str] = []
    started_unix_ms: int = 0
    is_draining: bool = False
    capacity: Capacity = Capacity()


class Route(msgspec.Struct, frozen=True):
    pool: str
    model: str


class _Seen(msgspec.Struct):
    presence: Presence
    at_s: float


class Directory:
    """`fixed`: pools of models by configuration, known also while nobody serves them."""

    def __init__(self, fixed: Mapping[str, str], *, default_pool: str) -> None:
        self._fixed = dict(fixed)
        self._default_pool = default_pool
        self._seen: dict[str, _Seen] = {}
        self._snapshots: dict[str, tuple[Snapshot, float]] = {}
        # By pool, also when its last consumer is gone: whoever asks then hears that it is, not that it never was.
        self._known: dict[str, set[str]] = {}
        self._last_s: dict[str, float] = {}
        for model, pool in self._fixed.items():
            self._known.setdefault(pool, set()).add(model)

    def note(self, key: str, presence: Presence, now_s: float) -> None:
        if not presence.pool:
            return
        self._seen[key] = _Seen(presence, now_s)
        self._known.setdefault(presence.pool, set()).update(presence.models)
        if not presence.is_draining:
            self._last_s[presence.pool] = now_s

    def knows(self, key: str) -> bool:
        return key in self._seen

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)

    def prune(self, now_s: float) -> None:
        """Forgets consumers that ended without a word."""
        self._seen = {key: seen for key, seen in self._seen.items() if now_s - seen.at_s < _ALIVE_S}

    def note_snapshot(self, snapshot: Snapshot, now_s: float) -> None:
        self._snapshots[snapshot.pool] = (snapshot, now_s)
        # It exists, whether or not anybody serves it now.
        self._known.setdefault(snapshot.pool, set())

    def snapshot(self, pool: str, now_s: float) -> Snapshot | None:
        """The dispatcher's newest view; None where there is no dispatcher."""
        snapshot, at_s = self._snapshots.get(pool, (None, 0.0))
        return snapshot if now_s - at_s < _FRESH_S else None

    def pools(self) -> list[str]:
        """All that were ever heard of."""
        return sorted(self._known)

    def consumers(self, pool: str, now_s: float) -> list[Presence]:
        """Those that take jobs."""
        return [
            seen.presence
            for seen in self._seen.values()
            if seen.presence.pool == pool and now_s - seen.at_s < _ALIVE_S and not seen.presence.is_draining
        ]

    def gone_s(self, pool: str, now_s: float) -> float:
        """For how long the pool has had no consumer; 0 while it has one."""
        if self.consumers(pool, now_s):
            return 0.0
        return now_s - self._last_s.get(pool, -math.inf)

    def models(self, now_s: float) -> list[Model]:
        """What can be asked for now, and what is fixed by configuration."""
        found: dict[str, list[tuple[str, Presence | None]]] = {}
        for pool in self._known:
            for presence in self.consumers(pool, now_s):
                for model in presence.models:
                    found.setdefault(model, []).append((pool, presence))
        for model, pool in self._fixed.items():
            found.setdefault(model, [(pool, None)])
        return [_model(name, places) for name, places in sorted(found.items())]

    def route(self, model: str | None, pool: str, now_s: float) -> Route:
        """Where a request for `model` goes; empty `pool` leaves the choice.

        Raises:
            UnknownModel, UnknownPool: nobody ever served it; names what there is.
        """
        if pool:
            return self._route_within(model, pool, now_s)
        if not model:
            return self._route_without_model(now_s)
        places = [name for name, models in self._known.items() if model in models]
        if not places:
            raise self._unknown_model(model, now_s)
        return Route(min(places, key=lambda name: (*self._busyness(name, model, now_s), name)), model)

    def wait_s(self, pool: str, lane: Lane, now_s: float) -> float:
        """How long a job of `lane` will wait at the measured rate, for what is ahead of it; 0 where nobody knows."""
        snapshot = self.snapshot(pool, now_s)
        if snapshot is None:
            return 0.0
        ahead = [name for name in Lane if list(Lane).index(name) <= list(Lane).index(lane)]
        amounts = [snapshot.lanes[name.value] for name in ahead if name.value in snapshot.lanes]
        jobs = sum(amount.jobs for amount in amounts)
        output = sum(amount.output_tokens for amount in amounts)
        prompt = sum(amount.prompt_tokens for amount in amounts)
        if snapshot.decode_tokens_per_s > 0 and output:
            prefill_s = prompt / snapshot.prefill_tokens_per_s if snapshot.prefill_tokens_per_s > 0 else 0.0
            return max(output / snapshot.decode_tokens_per_s, prefill_s)
        return jobs / snapshot.jobs_per_s if snapshot.jobs_per_s > 0 else 0.0

    def jobs_per_s(self, pool: str, now_s: float) -> float:
        snapshot = self.snapshot(pool, now_s)
        return snapshot.jobs_per_s if snapshot else 0.0

    def _route_within(self, model: str | None, pool: str, now_s: float) -> Route:
        models = self._known.get(pool)
        if models is None:
            raise UnknownPool(f"no pool {pool[:80]!r}; there are: {_shown(self.pools())}", param="pool")
        if model and model not in models:
            raise UnknownModel(
                f"pool {pool} does not serve the model {model[:200]!r}; it serves: {_shown(sorted(models))}",
                param="model",
            )
        now = [name for one in self.consumers(pool, now_s) for name in one.models]
        return Route(pool, model or min(now or models, default=""))

    def _route_without_model(self, now_s: float) -> Route:
        alive = [name for name in self.pools() if self.consumers(name, now_s)] or self.pools()
        if self._default_pool in alive:
            return self._route_within(None, self._default_pool, now_s)
        if len(alive) == 1:
            return self._route_within(None, alive[0], now_s)
        if not alive:
            raise UnknownModel("no consumer serves any model here yet", param="model")
        known = _shown([model.id for model in self.models(now_s)])
        raise JobMalformed(f"say which model: {known}", param="model", code="missing_model")

    def _unknown_model(self, model: str, now_s: float) -> UnknownModel:
        known = _shown([one.id for one in self.models(now_s)]) or "none yet"
        return UnknownModel(f"the model {model[:200]!r} does not exist here; there are: {known}", param="model")

    def _busyness(self, pool: str, model: str, now_s: float) -> tuple[bool, float, float]:
        """Smaller is better: somebody serves the model, little waits, and few jobs for each consumer."""
        serving = [one for one in self.consumers(pool, now_s) if model in one.models]
        held = sum(one.capacity.running + one.capacity.waiting for one in serving)
        return not serving, round(self.wait_s(pool, Lane.STANDARD, now_s), 1), held / max(1, len(serving))


def decode_snapshot(payload: bytes) -> Snapshot:
    """
    Raises:
        msgspec.DecodeError: it is none.
    """
    snapshot = msgspec.json.decode(payload, type=Snapshot)
    lanes = {name: amount for name, amount in snapshot.lanes.items() if name in LANES}
    return msgspec.structs.replace(snapshot, lanes=lanes)


def _model(name: str, places: list[tuple[str, Presence | None]]) -> Model:
    present = [presence for _, presence in places if presence is not None]
    starts = [presence.started_unix_ms for presence in present if presence.started_unix_ms]
    return Model(
        id=name,
        created=min(starts, default=0) // 1000,
        pools=sorted({pool for pool, _ in places}),
        consumers=len(present),
        max_model_len=min((presence.capacity.context_tokens_max for presence in present), default=0),
    )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more
