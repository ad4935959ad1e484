"""The GPUs of this machine, without asking a library that takes seconds to load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def gpus_here(environment: Mapping[str, str]) -> list[str]:
    """Those that this process may use, by number; none where the machine has none."""
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [one.strip() for one in allowed.split(",") if one.strip() and one.strip() != "-1"]
    try:
        return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").iterdir())))]
    except OSError:
        return []
