"""Pools that share a number of GPUs: nobody gets more than it wants, and nobody less while another has more. Pure."""

from __future__ import annotations

import msgspec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool wants, and what it must not fall below; `weight` is its share when there is too little."""

    pool: str
    replicas: int
    gpus_per_replica: int = 1
    minimum: int = 0
    weight: float = 1.0


def shared(claims: list[Claim], gpus: int) -> dict[str, int]:
    """Replicas by pool: minima first, then one replica at a time to whoever has least for its weight."""
    given = {claim.pool: 0 for claim in claims}
    left = gpus
    for only_minima in (True, False):
        open_claims = list(claims)
        while open_claims:
            claim = min(open_claims, key=lambda one: (given[one.pool] * one.gpus_per_replica / one.weight, one.pool))
            most = min(claim.minimum, claim.replicas) if only_minima else claim.replicas
            if given[claim.pool] >= most or claim.gpus_per_replica > left:
                open_claims.remove(claim)
                continue
            given[claim.pool] += 1
            left -= claim.gpus_per_replica
    return given
