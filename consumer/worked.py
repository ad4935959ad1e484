"""What this consumer has done since its start, for whoever decides how many consumers there should be. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from consumer.running import Held

# Of so many jobs the 95th percentile of what they took is known.
_TIMES_KEPT = 200


class _Lane(msgspec.Struct):
    """Jobs that began, and those that left again with what they were."""

    started: int = 0
    left: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class Worked:
    """Counts that only grow; a reader takes differences."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._service_s: deque[float] = deque(maxlen=_TIMES_KEPT)

    def note_left(self, held: Held, now_at: float) -> None:
        """It ended here, or goes back for another start."""
        if not held.is_admitted:
            return
        lane = self._lanes.setdefault(held.lane.value, _Lane())
        lane.left += 1
        lane.prompt_tokens += held.progress.prompt_tokens
        lane.output_tokens += _produced(held)
        self._service_s.append(now_at - held.progress.admitted_at)

    def described(self, holding: Iterable[Held]) -> dict[str, Any]:
        """`prompt_tokens` and `output_tokens` in all, with what runs now; a prompt counts when its answer begins."""
        running = [held for held in holding if held.is_admitted]
        produced = [_produced(held) for held in running]
        prompts = sum(held.progress.prompt_tokens for held, tokens in zip(running, produced, strict=True) if tokens)
        lanes = {name: msgspec.structs.replace(lane, started=lane.left) for name, lane in self._lanes.items()}
        for held in running:
            lanes.setdefault(held.lane.value, _Lane()).started += 1
        return {
            "prompt_tokens": sum(lane.prompt_tokens for lane in self._lanes.values()) + prompts,
            "output_tokens": sum(lane.output_tokens for lane in self._lanes.values()) + sum(produced),
            "service_p95_s": round(self._service_p95_s(), 3),
            "lanes": {name: msgspec.to_builtins(lane) for name, lane in lanes.items()},
        }

    def _service_p95_s(self) -> float:
        times = sorted(self._service_s)
        return times[int(0.95 * len(times))] if times else 0.0


def _produced(held: Held) -> int:
    need = held.progress.need
    return max(held.progress.tokens, need.produced() if need is not None else 0)
