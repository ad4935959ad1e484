"""Builders for what a policy sees."""

from __future__ import annotations

from typing import Any

from scaler.observation import Due, Observation, Tokens


def due(in_s: float, work_s: float, window_s: float = 3600.0, now_s: float = 0.0) -> Due:
    """Work in replica-seconds at 2,000 prompt tokens a second."""
    tokens = Tokens(jobs=max(1, int(work_s)), prompt=work_s * 2000.0)
    return Due(deadline_unix_s=now_s + in_s, window_s=window_s, tokens=tokens)


def interactive(work_s: float) -> dict[str, Tokens]:
    return {"interactive": Tokens(jobs=max(1, int(work_s)), prompt=work_s * 2000.0)}


def an_observation(now_s: float = 0.0, **changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "unix_s": now_s,
        "tick_s": 15.0,
        "prefill_tokens_per_s": 2000.0,
        "decode_tokens_per_s": 1400.0,
        "cold_start_s": 180.0,
        "short_lanes": ["interactive", "1h"],
    }
    return Observation(**{**fields, **changes})
