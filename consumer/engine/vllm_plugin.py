"""What vLLM loads in each of its processes (an entry point in pyproject.toml), also in those we do not start.

An engine must not outlive a consumer that was killed: it would hold the GPU's memory for ever.
"""

from __future__ import annotations

import os

from infra.life import exit_with_parent

# Set by the consumer to its own pid; anybody else's vLLM is left alone.
CONSUMER_PID = "PENSTOCK_CONSUMER_PID"


def register() -> None:
    consumer = os.environ.get(CONSUMER_PID)  # noqa: TID251 - it crosses process starts, as nothing else does
    if consumer and consumer != str(os.getpid()):
        exit_with_parent()
