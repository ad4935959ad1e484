"""What people change while it runs: weights and pauses, kept as JSON under `subjects.dispatch_settings`."""

from __future__ import annotations

import msgspec

from schemas.dispatch import Change


class DispatchSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Weights here win over those of the configuration. Batches are paused by name, whoever's they are."""

    weights: dict[str, float] = {}
    is_pool_paused: bool = False
    paused_tenants: frozenset[str] = frozenset()
    paused_batches: frozenset[str] = frozenset()


def changed(settings: DispatchSettings, change: Change) -> DispatchSettings:
    """What is not mentioned stays; what is both paused and resumed in one change is resumed."""
    return DispatchSettings(
        weights={**settings.weights, **change.weights},
        is_pool_paused=settings.is_pool_paused if change.pause_pool is None else change.pause_pool,
        paused_tenants=(settings.paused_tenants | set(change.pause_tenants)) - set(change.resume_tenants),
        paused_batches=(settings.paused_batches | set(change.pause_batches)) - set(change.resume_batches),
    )
