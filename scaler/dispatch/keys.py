"""A job id as 64 bits: a million ids as texts would cost more memory than everything else the index knows of them."""

from __future__ import annotations

import hashlib


def key_of(job_id: str) -> int:
    """Never 0. Two of a million ids share a key with probability 3e-8; ask the broker where that matters."""
    digest = hashlib.blake2b(job_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
