"""A job id as 64 bits: a million ids as texts would cost more memory than everything else the index knows of them."""

from __future__ import annotations

from schemas.backlog import KEY_MAX


def key_of(job_id: str) -> int:
    """Never 0, and of this process only: Python salts its hashes, so nobody can choose ids that share a key.

    Two of a million ids share one with probability 3e-8; ask the broker where that matters.
    """
    return hash(job_id) & KEY_MAX or 1
