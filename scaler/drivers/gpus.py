"""Which GPUs a new consumer gets. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

# Thirds add up to one only nearly.
_ALMOST = 1e-6


class GpuNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Whole GPUs, or a part of one that several consumers share by memory."""

    gpus: int = 1
    consumers_per_gpu: int = 1

    @property
    def share(self) -> float:
        """What it takes of each GPU it gets."""
        return 1 / self.consumers_per_gpu if self.gpus == 1 else 1.0


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    gpus: Sequence[str]
    share: float


def free_gpus(gpus: Sequence[str], taken: Iterable[Taken], need: GpuNeed) -> list[str] | None:
    """The GPUs for one more; None where there is no room. On a machine without GPUs everybody gets none.

    Shared ones are filled up before the next is begun, so that consumers who need whole ones find some.
    """
    if not gpus or not need.gpus:
        return []
    left = room_left(gpus, taken)
    fitting = [gpu for gpu in gpus if left[gpu] >= need.share - _ALMOST]
    fitting.sort(key=lambda gpu: left[gpu])
    return fitting[: need.gpus] if len(fitting) >= need.gpus else None


def room_left(gpus: Sequence[str], taken: Iterable[Taken]) -> Mapping[str, float]:
    left = dict.fromkeys(gpus, 1.0)
    for one in taken:
        for gpu in one.gpus:
            if gpu in left:
                left[gpu] -= one.share
    return left
