"""Names for jobs and inboxes: unguessable, sortable by time where they are ours to choose. No clock, no randomness."""

from __future__ import annotations

import hashlib


def job_id(now_unix_ms: int, random: bytes) -> str:
    """Like a UUIDv7 in hex: 48 bits of time, so that ids sort by age, then 80 random bits, so that none is guessed."""
    assert len(random) == 10
    return f"{now_unix_ms & (2**48 - 1):012x}{random.hex()}"


def job_id_of_key(tenant: str, key: str) -> str:
    """The id of every job submitted by `tenant` under the idempotency key `key`."""
    digest = hashlib.sha256(f"{tenant}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"key-{digest[:40]}"


def job_id_of_line(run_id: str, custom_id: str) -> str:
    """The id of one line of one batch run: the same again when the run is resumed."""
    digest = hashlib.sha256(custom_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{run_id}-{digest[:32]}"


def line_id(run_id: str, line: int) -> str:
    """The id of a line that never became a job, by its number."""
    return f"{run_id}-line-{line}"
